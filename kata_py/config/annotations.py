"""What a pod asks for in its annotations, laid over the configuration.

Names, gates and limits are kata-containers' (`virtcontainers/pkg/annotations/annotations.go`, `pkg/oci/utils.go`; those
of runtime-rs in `kata-types/src/annotations/mod.rs`). Stricter in three ways: an entry of `enable_annotations` must fit
the whole of a name, a misspelt name is an error, and a file counts as what it really is (`kata_py.config.paths`).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kata_py.config.assets import ALGORITHMS
from kata_py.config.bind import converted, described, excerpt, foreign, nearest, pending, types_of
from kata_py.config.check import contradiction
from kata_py.config.errors import ConfigurationError
from kata_py.config.model import REMOTE, AgentConfig, Asset, Configuration, HypervisorConfig, RuntimeConfig
from kata_py.config.paths import PathError, listed_file, real_file
from kata_py.config.rules import (
    BOOTED,
    CLEARS,
    CONFIG,
    HASH_TYPES,
    HASHES,
    HYPERVISOR,
    POLICY,
    REFUSED,
    RULES,
    WRITTEN_AS,
    Rule,
    read_as,
    reader,
)
from kata_py.config.upstream import NOT_HONOURED
from kata_py.config.values import Bound, Form, Mebibytes, Range

_SHAPES: dict[str, type] = {"hypervisor": HypervisorConfig, "agent.kata": AgentConfig, "runtime": RuntimeConfig}

POLICY_MAX = 3 << 20  # bytes; a message to the agent holds 4 MiB

_TEXT = Form(r"[^\x00-\x1f\x7f]*", "without control characters")


def annotated(
    configuration: Configuration, annotations: Mapping[str, str], *, cpus: int | None = None
) -> Configuration:
    """Lay a sandbox's annotations over a configuration. Touches nothing but the paths that they name.

    Args:
        configuration: As the runtime class has it.
        annotations: Those of the sandbox; others than kata's are passed over.
        cpus: How many processors the host has; None asks it.

    Raises:
        ConfigurationError: An annotation is unknown, not allowed, not honoured yet or of the wrong form, or what
            comes of them contradicts itself.
    """
    asked = {name: text for name, text in annotations.items() if _is_kata_s(name)}
    for name in sorted(asked):
        _check_name(name, configuration)
    tables = _Tables(configuration, os.cpu_count() or 1 if cpus is None else cpus)
    for name, rule in RULES.items():
        if name in asked:
            tables.lay(name, rule, asked[name])
    if f"{HYPERVISOR}image" in asked and f"{HYPERVISOR}initrd" in asked:
        raise _fault(f"{HYPERVISOR}initrd", "is there beside that of the image", "a guest has one root file system")
    result = tables.configuration()
    result = replace(result, assets=tuple(_assets(asked, result.hypervisor)), policy=_policy(asked.get(POLICY)))
    if asked and (cause := contradiction(result)):
        hint = f"the pod's annotations are laid over {configuration.source}"
        raise ConfigurationError(f"annotations of the pod: {cause}", hint=hint)
    return result


@dataclass(slots=True)
class _Tables:
    """The configuration's tables while annotations are laid over them."""

    base: Configuration
    cpus: int
    changes: dict[str, dict[str, Any]] = field(default_factory=lambda: {section: {} for section in _SHAPES})

    def configuration(self) -> Configuration:
        """What has become of it."""
        return replace(
            self.base,
            hypervisor=replace(self.base.hypervisor, **self.changes["hypervisor"]),
            agent=replace(self.base.agent, **self.changes["agent.kata"]),
            runtime=replace(self.base.runtime, **self.changes["runtime"]),
        )

    def lay(self, name: str, rule: Rule, text: str) -> None:
        """Lay one annotation over them."""
        if self._remote and rule.key == "image":
            rule = replace(rule, key="remote_image")
        shape = _SHAPES[rule.section]
        hint = types_of(shape).get(rule.key)
        if self._remote and rule.key == "default_memory":
            hint = Mebibytes  # the adaptor makes of it what its cloud has
        if hint is None:
            _refuse_foreign(name, rule, text)
            return
        raw = (rule.read or reader(hint))(text)
        try:
            value = converted(raw, hint)
        except ValueError:
            raise _fault(name, f"must be {described(hint)}, not {excerpt(text)}") from None
        bounds: list[Bound | None] = [_TEXT if isinstance(value, str) else None, self._bound(rule)]
        for bound in filter(None, bounds):
            if not bound.accepts(value):
                kind = "a string" if isinstance(value, str) else "a number"
                raise _fault(name, f"must be {kind} {bound}, not {excerpt(text)}")
        if refusal := pending(shape, rule.section, rule.key, value):
            raise _fault(name, f"= {excerpt(text)} is not honoured yet", refusal)
        if rule.section == "hypervisor":
            value = self._checked(name, rule.key, value)
        table = self.changes[rule.section]
        try:
            table[rule.key] = rule.merge(self._present(rule), value) if rule.merge else value
        except ValueError as error:
            raise _fault(name, str(error)) from None
        other, cleared = CLEARS.get(rule.key, ("", None))
        if other and value != cleared:
            table.setdefault(other, cleared)

    def _present(self, rule: Rule) -> object:
        table = {
            "hypervisor": self.base.hypervisor, "agent.kata": self.base.agent, "runtime": self.base.runtime,
        }[rule.section]  # fmt: skip
        return self.changes[rule.section].get(rule.key, getattr(table, rule.key))

    @property
    def _remote(self) -> bool:
        return self.base.hypervisor.name == REMOTE

    def _bound(self, rule: Rule) -> Bound | None:
        if rule.section == "hypervisor" and not self._remote:
            if rule.key == "default_vcpus":
                return Range(0, self.cpus)
            if rule.key == "default_memory":
                return Range(256)
        return rule.bound

    def _checked(self, name: str, key: str, value: object) -> object:
        """A path as the file it leads to; other values as they are."""
        hypervisor = self.base.hypervisor
        lists = {
            "path": ("valid_hypervisor_paths", hypervisor.valid_hypervisor_paths),
            "virtio_fs_daemon": ("valid_virtio_fs_daemon_paths", hypervisor.valid_virtio_fs_daemon_paths),
            "entropy_source": ("valid_entropy_sources", hypervisor.valid_entropy_sources),
        }
        if key in lists:
            listing, globs = lists[key]
            if value is None:
                if "" in globs:
                    return None
                raise _fault(name, 'may not be ""', f'add "" to {listing} in {self.base.source}')
            try:
                return listed_file(str(value), globs)
            except PathError as error:
                hint = f"{listing} in {self.base.source} lists what pods may name"
                raise _fault(name, f"names {value}, which {error}", hint) from error
        if key in BOOTED and isinstance(value, Path):
            try:
                return real_file(str(value))
            except PathError as error:
                raise _fault(name, f"names {value}, which {error}") from error
        return value


def _is_kata_s(name: str) -> bool:
    return name.startswith(CONFIG) or name in RULES or name in REFUSED or name in HASH_TYPES


def _check_name(name: str, configuration: Configuration) -> None:
    """Raise, unless pods may use the annotation."""
    if reason := REFUSED.get(name):
        raise _fault(name, f"is not supported: {reason}")
    valid = [*RULES, *HASHES, *HASH_TYPES, POLICY]
    if name not in valid:
        raise ConfigurationError(
            f"unknown annotation {name[:200]}", hint=f"the nearest valid one is {nearest(name[:200], valid)}"
        )
    if not name.startswith(HYPERVISOR):
        return
    suffix = name.removeprefix(HYPERVISOR)
    names = (suffix, *WRITTEN_AS.get(suffix, ()))
    if not any(re.fullmatch(entry, name) for entry in configuration.hypervisor.enable_annotations for name in names):
        raise _fault(name, "is not enabled", f'add "{suffix}" to enable_annotations in {configuration.source}')


def _refuse_foreign(name: str, rule: Rule, text: str) -> None:
    """Raise, unless the annotation is for a key that the model has not, and changes nothing."""
    known = NOT_HONOURED[rule.section]
    if rule.key not in known:
        raise _fault(name, "is not honoured yet")
    accepted = known[rule.key]
    if accepted is not None:
        readings = [read_as(type(value), text) for value in accepted]
        refusals = [foreign(rule.section, rule.key, reading) for reading in readings]
        if all(refusals):
            raise _fault(name, f"= {excerpt(text)} is not honoured yet", refusals[0])


def _assets(asked: Mapping[str, str], hypervisor: HypervisorConfig) -> Iterable[Asset]:
    """The digests that are asked for, each with the file that will be used."""
    algorithms = {asked[name] for name in HASH_TYPES if name in asked} or {ALGORITHMS[0]}
    if len(algorithms) > 1:
        raise _fault(" and ".join(HASH_TYPES), "differ", "leave one of them")
    [algorithm] = algorithms
    if algorithm not in ALGORITHMS:
        name = next(name for name in HASH_TYPES if name in asked)
        raise _fault(name, f"must be one of {', '.join(ALGORITHMS)}, not {excerpt(algorithm)}")
    digits = int(algorithm.removeprefix("sha")) // 4
    for name, key in HASHES.items():
        if name not in asked:
            continue
        path = getattr(hypervisor, key)
        if path is None or (key == "image" and hypervisor.initrd is not None):
            raise _fault(name, f"vouches for a file that is not used: there is no {key}")
        digest = asked[name].lower()
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", digest):
            raise _fault(name, f"must be a {algorithm} of {digits} hexadecimal digits, not {excerpt(asked[name])}")
        yield Asset(name, path, algorithm, digest)


def _policy(text: str | None) -> str:
    """The policy of the annotation; line ends in it are passed over, as upstream does."""
    if text is None:
        return ""
    if len(text) > POLICY_MAX * 4 // 3:
        raise _fault(POLICY, f"has {len(text)} characters, more than a policy of {POLICY_MAX >> 20} MiB needs")
    try:
        policy = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True).decode()
    except ValueError as error:
        hint = "encode the policy with `base64 -w0`"
        raise _fault(POLICY, f"must be Rego text in base64, and is not: {error}", hint) from None
    if not policy.strip():
        raise _fault(POLICY, "is empty", "leave it out to run without a policy of the pod's own")
    return policy


def _fault(name: str, cause: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"annotation {name} {cause}", hint=hint)
