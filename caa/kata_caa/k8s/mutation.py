"""What becomes of a peer pod's spec: its resources are those of a machine in the cloud, not of the node.

The scheduler is to count machines and not the node's processors, so the containers' resources are taken out, and the
first container asks for one machine; what they add up to goes to the adaptor as annotations.
Source: cloud-api-adaptor `src/webhook/pkg/mutating_webhook/remove-resourcespec.go`.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kata_caa.errors import MalformedConfig
from kata_caa.k8s.quantity import parse

_HYPERVISOR = "io.katacontainers.config.hypervisor."
_GPU = "nvidia.com/gpu"
_MIB = 1 << 20

Json = Any  # what a JSON document of the API server is made of; its schema is Kubernetes' own


@dataclass(frozen=True, slots=True)
class Rules:
    """Which pods are changed, and to what.

    Attributes:
        runtime_class: The class of peer pods.
        resource: The extended resource that stands for a machine.
    """

    runtime_class: str = "kata-remote"
    resource: str = "kata.peerpods.io/vm"

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Rules:
        """As the environment says: `TARGET_RUNTIMECLASS`, or `TARGET_RUNTIME_CLASS` as OpenShift's guide has it, and
        `POD_VM_EXTENDED_RESOURCE`."""
        default = cls()
        return cls(
            environ.get("TARGET_RUNTIMECLASS") or environ.get("TARGET_RUNTIME_CLASS") or default.runtime_class,
            environ.get("POD_VM_EXTENDED_RESOURCE") or default.resource,
        )


def patch(pod: Json, rules: Rules) -> list[dict[str, Json]]:
    """The JSON patch (RFC 6902) that makes a pod a peer pod; empty for one of another class, and for one that is so.

    Args:
        pod: As the API server sends it.
        rules: Which pods are changed, and to what.

    Raises:
        MalformedConfig: A quantity is none, or the pod has no containers.
    """
    spec = pod.get("spec", {})
    if spec.get("runtimeClassName") != rules.runtime_class:
        return []
    containers = spec.get("containers") or []
    if not containers:
        raise MalformedConfig("spec.containers is empty")
    everyone = [*containers, *(spec.get("initContainers") or [])]
    if _is_ours(everyone, rules):
        return []  # the API server may ask again
    operations = list(_annotations(pod, everyone, rules))
    for key in ("containers", "initContainers"):
        for number, container in enumerate(spec.get(key) or []):
            first = key == "containers" and number == 0
            operations += _resources(f"/spec/{key}/{number}/resources", container, _machine(rules) if first else None)
    return operations


def _is_ours(containers: Sequence[Json], rules: Rules) -> bool:
    return [each.get("resources") or {} for each in containers] == [_machine(rules)] + [{}] * (len(containers) - 1)


def _machine(rules: Rules) -> Json:
    return {"requests": {rules.resource: "1"}, "limits": {rules.resource: "1"}}


def _annotations(pod: Json, containers: Sequence[Json], rules: Rules) -> Iterator[dict[str, Json]]:
    found = {
        "default_vcpus": math.ceil(_size(containers, "cpu")),
        "default_memory": math.ceil(_size(containers, "memory") / _MIB),
        "default_gpus": math.ceil(_total(containers, "requests", _GPU)),
    }
    present = pod.get("metadata", {}).get("annotations")
    if any(each.get("resources") == _machine(rules) for each in containers):
        # Asked again, as another webhook has put a container in: what it asks for comes on top.
        found = {key: number and number + _number(present, _HYPERVISOR + key) for key, number in found.items()}
    values = {_HYPERVISOR + key: str(number) for key, number in found.items() if number > 0}
    if values and present is None:
        yield {"op": "add", "path": "/metadata/annotations", "value": values}
    elif values:
        for key, value in values.items():
            yield {
                "op": "add",
                "path": f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}",
                "value": value,
            }


def _number(annotations: Mapping[str, str] | None, key: str) -> int:
    text = (annotations or {}).get(key, "0")
    if not (text.isascii() and text.isdigit()):
        raise MalformedConfig(f"the annotation {key} is {text!r}, which is no number")
    return int(text)


def _resources(path: str, container: Json, machine: Json | None) -> Iterator[dict[str, Json]]:
    if machine:
        yield {"op": "add", "path": path, "value": machine}
    elif container.get("resources"):
        yield {"op": "replace", "path": path, "value": {}}


def _size(containers: Iterable[Json], resource: str) -> Decimal:
    """The limits, if something is requested and they are not below; else what is requested."""
    containers = list(containers)
    request, limit = _total(containers, "requests", resource), _total(containers, "limits", resource)
    return limit if request and limit >= request else max(request, Decimal(0))


def _total(containers: Iterable[Json], kind: str, resource: str) -> Decimal:
    total = Decimal(0)
    for container in containers:
        text = ((container.get("resources") or {}).get(kind) or {}).get(resource)
        if text is not None:
            total += parse(str(text))
    return total


def review(request: bytes, rules: Rules) -> bytes:
    """The answer to an AdmissionReview (`admission.k8s.io/v1`).

    A pod that cannot be understood is refused with the reason, so that its owner sees it. One that is there already is
    left as it is: its resources may not be changed any more. OpenShift's configuration asks of updates, too.

    Raises:
        MalformedConfig: It is no AdmissionReview.
    """
    try:
        document = json.loads(request)
        asked = document["request"]
        uid = asked["uid"]
        pod = asked["object"]
    except (ValueError, KeyError, TypeError):
        raise MalformedConfig("the request is no AdmissionReview of a pod") from None
    answer: dict[str, Json] = {"uid": uid, "allowed": True}
    try:
        operations = patch(pod, rules) if asked.get("operation", "CREATE") == "CREATE" else []
    except MalformedConfig as error:
        answer |= {"allowed": False, "status": {"code": 422, "message": str(error)}}
    else:
        if operations:
            answer |= {"patchType": "JSONPatch", "patch": b64encode(json.dumps(operations).encode()).decode()}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
