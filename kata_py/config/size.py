"""How large a pod is, as its manager says when it makes the sandbox: before any container is known.

Source: containerd `internal/cri/annotations/annotations.go`; CRI-O `server/sandbox_run_linux.go`, whose values are
the CRI's LinuxContainerResources as JSON; kata `pkg/oci/utils.go` (CalculateSandboxSizing).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from kata_py.config.errors import ConfigurationError

MIB = 1 << 20
_SHARES_OF_ONE_CPU = 1024

_CONTAINERD = "io.kubernetes.cri.sandbox-"
_RESOURCES = ("io.kubernetes.cri-o.PodLinuxResources", "pod-linux-resources.crio.io")
_OVERHEAD = ("io.kubernetes.cri-o.PodLinuxOverhead", "pod-linux-overhead.crio.io")
_FIELDS = ("cpu_period", "cpu_quota", "cpu_shares", "memory_limit_in_bytes")
_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SandboxSize:
    """What all containers of a pod may use together; 0 is unknown.

    Attributes:
        vcpus: Processors, perhaps a fraction.
        memory: MiB, rounded down.
        overhead_vcpus: Processors that the runtime class adds for the machine itself; CRI-O alone tells.
        overhead_memory: MiB of the same.
    """

    vcpus: float = 0.0
    memory: int = 0
    overhead_vcpus: float = 0.0
    overhead_memory: int = 0

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> SandboxSize:
        """The size that a sandbox's annotations tell.

        Raises:
            ConfigurationError: One of them has not its form.
        """
        resources = _containerd(annotations) or _crio(annotations, _RESOURCES)
        overhead = _crio(annotations, _OVERHEAD)
        return cls(_vcpus(resources), _memory(resources), _vcpus(overhead), _memory(overhead))


def _containerd(annotations: Mapping[str, str]) -> dict[str, int]:
    """The four annotations, by the names that the CRI has for their values."""
    found = {}
    for name, field in zip(("cpu-period", "cpu-quota", "cpu-shares", "memory"), _FIELDS, strict=True):
        text = annotations.get(_CONTAINERD + name, "")
        if not text:
            continue
        try:
            found[field] = _whole(int(text))
        except ValueError:
            raise ConfigurationError(f'{_CONTAINERD}{name} must be a whole number, not "{text[:40]}"') from None
    return found


def _crio(annotations: Mapping[str, str], names: tuple[str, ...]) -> dict[str, int]:
    for name in names:
        if name not in annotations:
            continue
        try:
            resources = json.loads(annotations[name]) or {}
            return {field: _whole(resources.get(field) or 0) for field in _FIELDS}
        except (ValueError, AttributeError, RecursionError):
            raise ConfigurationError(f"{name} must be the CRI's LinuxContainerResources as JSON") from None
    return {}


def _whole(number: object) -> int:
    if type(number) is not int or abs(number) > _LARGEST:
        raise ValueError
    return number


def _vcpus(resources: Mapping[str, int]) -> float:
    """No quota is a pod that has processors of its own (the kubelet's static policy): its shares tell how many."""
    quota, period = resources.get("cpu_quota", 0), resources.get("cpu_period", 0)
    if quota < 0:
        return float(math.ceil(max(resources.get("cpu_shares", 0), 0) / _SHARES_OF_ONE_CPU))
    return quota / period if period > 0 else 0.0


def _memory(resources: Mapping[str, int]) -> int:
    return max(resources.get("memory_limit_in_bytes", 0), 0) // MIB
