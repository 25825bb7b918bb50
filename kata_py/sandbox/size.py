"""How large a pod's machine shall be: what its containers may use, and the configuration's own on top. No I/O.

Source: kata `virtcontainers/sandbox.go` (calculateSandboxCPUs, calculateSandboxMemory, updateResources),
`pkg/oci/utils.go` (CalculateSandboxSizing).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

from kata_py.config.model import Configuration
from kata_py.config.size import SandboxSize
from kata_py.hypervisor.api import Memory, Size, Vcpus
from kata_py.oci.spec import LinuxResources
from kata_py.resource.cpuset import parse_cpuset
from kata_py.sandbox.errors import InvalidArgument

MIB = 1 << 20
HUGE_PAGE = 2  # MiB, on x86_64 unless the host was told otherwise

# What a machine type can have at most. Source: kata `pkg/govmm/vmm_{amd64,s390x}.go`.
_MOST_VCPUS = 240
_MOST_VCPUS_S390X = 248


@dataclass(frozen=True, slots=True)
class Host:
    """How large the host is.

    Attributes:
        cpus: Its processors.
        memory: Its memory in MiB.
    """

    cpus: int
    memory: int

    @classmethod
    def unbounded(cls) -> Host:
        """No host that we know of: the machine is elsewhere."""
        return cls(1 << 20, 1 << 40)

    @classmethod
    def current(cls) -> Host:
        """This host."""
        return cls(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB)


@dataclass(frozen=True, slots=True)
class Demand:
    """A size, and how much was asked for where that is more than the machine may have.

    Attributes:
        size: What the machine shall be.
        refused: What of the demand it shall not be, in words; empty if it is met.
    """

    size: Size
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a pod's machine is measured.

    Attributes:
        vcpus: Processors for the guest itself, perhaps a fraction.
        memory: MiB for the guest itself.
        most: The largest it may become.
        announced: What the manager said of the whole pod when it made the sandbox.
        fixed: Whether it keeps the size it boots with.
        unit: MiB that the memory at boot is a multiple of.
    """

    vcpus: float
    memory: int
    most: Size
    announced: SandboxSize
    fixed: bool = False
    unit: int = 1

    @classmethod
    def of(cls, configuration: Configuration, host: Host, announced: SandboxSize) -> Sizing:
        """As a configuration says, on this host."""
        hypervisor = configuration.hypervisor
        most = _MOST_VCPUS_S390X if "s390" in hypervisor.machine_type else _MOST_VCPUS
        vcpus = hypervisor.default_vcpus or 1
        if not 0 < vcpus <= host.cpus:
            vcpus = host.cpus
        max_vcpus = min(hypervisor.default_maxvcpus or host.cpus, host.cpus, most)
        max_memory = min(hypervisor.default_maxmemory or host.memory, host.memory)
        return cls(
            vcpus=vcpus,
            memory=hypervisor.default_memory,
            most=Size(max(max_vcpus, math.ceil(vcpus)), max(max_memory, hypervisor.default_memory)),
            announced=announced,
            fixed=configuration.runtime.static_sandbox_resource_mgmt,
            unit=HUGE_PAGE if hypervisor.enable_hugepages else 1,
        )

    def demand(self, containers: Iterable[LinuxResources]) -> Demand:
        """The size for containers that are not stopped; rounded once, after all is added up.

        Args:
            containers: What each of them may use.
        """
        given = list(containers)
        vcpus = self.vcpus + max(_vcpus(given), self.announced.vcpus)
        memory = self.memory + max(sum(map(_memory, given)) // MIB, self.announced.memory)
        memory -= memory % self.unit
        asked = Size(math.ceil(vcpus - 1e-9), memory)  # thirds and tenths do not add up to a whole in binary
        size = Size(min(asked.cpus, self.most.cpus), min(asked.memory, self.most.memory // self.unit * self.unit))
        refused = []
        if asked.cpus > size.cpus:
            refused.append(f"{asked.cpus} vCPUs, of which it gets {size.cpus} (default_maxvcpus)")
        if asked.memory > size.memory:
            refused.append(f"{asked.memory} MiB, of which it gets {size.memory} (default_maxmemory)")
        return Demand(size, " and ".join(refused))

    def boot(self, containers: Iterable[LinuxResources], configuration: Configuration) -> tuple[Vcpus, Memory]:
        """What the machine boots with, and may grow to."""
        hypervisor = configuration.hypervisor
        size = self.demand(containers).size
        if self.fixed:
            return Vcpus(size.cpus, size.cpus, hypervisor.cpu_features), Memory(size.memory, size.memory)
        return (
            Vcpus(size.cpus, self.most.cpus, hypervisor.cpu_features),
            Memory(size.memory, self.most.memory, hypervisor.memory_slots, hypervisor.enable_virtio_mem),
        )


def merged(old: LinuxResources, new: LinuxResources) -> LinuxResources:
    """Resources after an update, which tells only what becomes different."""
    result: LinuxResources = {**old, **new}
    if "cpu" in old and "cpu" in new:
        result["cpu"] = {**old["cpu"], **new["cpu"]}
    if "memory" in old and "memory" in new:
        result["memory"] = {**old["memory"], **new["memory"]}
    return result


def _vcpus(containers: Iterable[LinuxResources]) -> float:
    """The sum of all quotas. Without any, as many as the containers' sets of processors have."""
    total, processors = 0.0, set[int]()
    for resources in containers:
        cpu = resources.get("cpu", {})
        quota, period = cpu.get("quota", 0), cpu.get("period", 0)
        if quota > 0 and period > 0:
            total += quota / period
        try:
            processors |= parse_cpuset(cpu.get("cpus", ""))
        except ValueError as error:
            raise InvalidArgument(f"linux.resources.cpu.cpus: {error}") from None
    return total or float(len(processors))


def _memory(resources: LinuxResources) -> int:
    """Bytes of memory that a container may use, huge pages included."""
    pages = sum(max(limit["limit"], 0) for limit in resources.get("hugepageLimits", []))
    return max(resources.get("memory", {}).get("limit", 0), 0) + pages
