"""Who may do what, as roles in manifests say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "configs" / "kubernetes"
NODE = MANIFESTS / "node"  # of sandboxes on their own node; all others are of peer pods


@dataclass(frozen=True)
class Asked:
    """What a request wants to do."""

    verb: str
    group: str
    resource: str  # with its sub-resource: `nodes/status`
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class Rule:
    """What is allowed, in all namespaces or in one."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str] = frozenset()
    namespace: str = ""

    def allows(self, asked: Asked) -> bool:
        """Whether it allows that."""
        return (
            asked.verb in self.verbs
            and asked.group in self.groups
            and asked.resource in self.resources
            and (not self.names or asked.name in self.names)
            and (not self.namespace or asked.namespace == self.namespace)
        )


def documents() -> list[dict[str, Any]]:
    """All objects of the manifests of peer pods."""
    paths = sorted(path for path in MANIFESTS.rglob("*.yaml") if NODE not in path.parents)
    return [each for path in paths for each in yaml.safe_load_all(path.read_text()) if each]


def rules_of(account: str) -> list[Rule]:
    """What our manifests allow a service account."""
    found = []
    things = documents()
    for binding in things:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        if account not in [each["name"] for each in binding["subjects"] if each["kind"] == "ServiceAccount"]:
            continue
        (role,) = [
            each
            for each in things
            if (each["kind"], each["metadata"]["name"]) == (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        ]
        namespace = binding["metadata"]["namespace"] if binding["kind"] == "RoleBinding" else ""
        found += [_rule(each, namespace) for each in role["rules"]]
    return found


def _rule(rule: dict[str, Iterable[str]], namespace: str) -> Rule:
    return Rule(
        verbs=frozenset(rule["verbs"]),
        groups=frozenset(rule["apiGroups"]),
        resources=frozenset(rule["resources"]),
        names=frozenset(rule.get("resourceNames", ())),
        namespace=namespace,
    )
