"""What a hypervisor driver must offer, and the frozen values it is given.

Few verbs: `launch` gives a running `Vm`; leaving its context ends it. Optional abilities are further small
Protocols. Drivers are found by entry point (group `kata_py.hypervisors`) and pass one conformance suite.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from kata_py.network.nic import Nic as Nic
from kata_py.resource.journal import Journal
from kata_py.ttrpc.address import Address


class HypervisorError(Exception):
    """A virtual machine could not be started, changed or kept running.

    Attributes:
        stage: The stage it failed in, a name from the timeline: `virtiofsd`, `qemu`, `kernel`, `agent`.
        hint: What to do next, for people; may be empty.
        evidence: The last lines of the console and of the hypervisor's own output, oldest first.
        budget: Seconds that what has failed was given, if it was too slow.
    """

    def __init__(
        self, stage: str, cause: str, *, hint: str = "", evidence: tuple[str, ...] = (), budget: float | None = None
    ) -> None:
        super().__init__(cause)
        self.stage = stage
        self.cause = cause
        self.hint = hint
        self.evidence = evidence
        self.budget = budget

    def __str__(self) -> str:
        text = f"{self.stage}: {self.cause}"
        if self.hint:
            text += f" ({self.hint})"
        if self.evidence:
            text += "; last lines: " + " | ".join(self.evidence[-5:])
        return text


class Accelerator(enum.Enum):
    """What runs the guest's instructions; AUTO takes KVM where it can run a stock guest, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class AgentChannel(enum.Enum):
    """How the host reaches the agent; AUTO takes vsock where the host has it, else virtio-serial."""

    AUTO = "auto"
    VSOCK = "vsock"
    HYBRID_VSOCK = "hybrid-vsock"
    VIRTIO_SERIAL = "virtio-serial"


@dataclass(frozen=True, slots=True)
class Vcpus:
    """Virtual processors: how many at boot, how many at most, and CPU feature text (`pmu=off`)."""

    count: int = 1
    maximum: int = 1
    features: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """Guest memory in MiB: at boot, at most, slots for hot-plug (0: none); or one device that grows (virtio-mem)."""

    size: int = 2048
    maximum: int = 2048
    slots: int = 0
    virtio_mem: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """How large a running machine is: virtual processors, and memory in MiB."""

    cpus: int
    memory: int


@dataclass(frozen=True, slots=True)
class Boot:
    """What the guest boots: kernel, initramfs, root image, and parameters added to the kernel's line."""

    kernel: Path
    initramfs: Path | None = None
    image: Path | None = None
    image_fstype: str = "erofs"
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    """A host directory that the guest mounts by tag (virtio-fs)."""

    tag: str
    source: Path


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A raw image file or block device of the host, as a virtio-blk disk; `id` is its serial, ≤ 20 bytes."""

    id: str
    path: Path
    read_only: bool = False


VFIO = "vfio-"  # begins the names of the host's devices in a machine


class VfioKind(enum.Enum):
    """What a device of the host is: of PCI, a part of one (mediated), crypto queues, or of the channel subsystem."""

    PCI = "vfio-pci"
    MEDIATED = "mdev"
    AP = "vfio-ap"
    CCW = "vfio-ccw"


@dataclass(frozen=True, slots=True)
class VfioDevice:
    """A device of the host that the guest drives; found by `kata_py.hypervisor.vfio.find`.

    Attributes:
        host: Its PCI address (`0000:01:00.0`), or that of the device it is a part of; the name of one that has none.
        kind: What it is.
        sysfs: Its directory in sysfs.
        iommufd: Whether it is used by itself (`/dev/vfio/devices`), and not by its group.
        queues: The crypto queues of one of kind AP, as sysfs has them: `05.0031`.
    """

    host: str
    kind: VfioKind
    sysfs: Path
    iommufd: bool = False
    queues: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name in a machine."""
        return VFIO + self.sysfs.name.replace(":", "-").replace(".", "-")


Device = SharedDirectory | BlockDevice | Nic | VfioDevice


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """Where the guest finds an attached device.

    Attributes:
        id: The hypervisor's name of it.
        address: Its PCI path (`02/01`, kata's form), CCW id or SCSI address; may be empty.
        driver: How the agent calls the way to find a disk there: `blk`, `blk-ccw`, `scsi`.
    """

    id: str
    address: str = ""
    driver: str = "blk"


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A virtual machine, fully decided.

    Attributes:
        sandbox_id: The sandbox's id.
        directory: Where its sockets and pid file go; made and removed by the driver.
        boot: What it boots.
        cpus: Virtual processors.
        memory: Guest memory.
        devices: Devices present from the start.
        agent_channel: How the agent is reached.
        accelerator: What runs its instructions.
        machine: Machine type (`q35`, `s390-ccw-virtio`); empty is the driver's default.
        debug: Whether the guest's kernel talks much.
        agent_log: Whether the agent's log comes over a port of its own, `Ports.log`.
        debug_console: Whether whoever debugs the guest reaches a shell in it, `Ports.debug_console`.
        network_namespace: The path of the pod's network namespace, which its processes are put into; None is one with
            nothing in it.
        selinux_label: What its processes are labelled with where the host has SELinux; empty is by the policy's rules.
        annotations: What an adaptor that makes it elsewhere is told of the pod; empty for a machine on this host.
    """

    sandbox_id: str
    directory: Path
    boot: Boot
    cpus: Vcpus = Vcpus()
    memory: Memory = Memory()
    devices: tuple[Device, ...] = ()
    agent_channel: AgentChannel = AgentChannel.AUTO
    accelerator: Accelerator = Accelerator.AUTO
    machine: str = ""
    debug: bool = False
    agent_log: bool = False
    debug_console: bool = False
    network_namespace: Path | None = None
    selinux_label: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        """Whether it takes nothing of this host: neither processors to boot nor devices."""
        return bool(self.annotations)

    def having(self, devices: tuple[Device, ...]) -> VmSpec:
        """The machine with further devices from the start."""
        return replace(self, devices=(*self.devices, *devices))


@dataclass(frozen=True, slots=True)
class VmExit:
    """How a virtual machine ended.

    Attributes:
        cause: In words: `qemu was killed by signal 9`, `virtiofsd exited with status 1`, `guest powered off`.
        expected: Whether we asked for it.
        evidence: Last lines of console and hypervisor output, oldest first.
    """

    cause: str
    expected: bool = False
    evidence: tuple[str, ...] = ()


class Vm(Protocol):
    """A running virtual machine."""

    @property
    def agent(self) -> Address:
        """Where the agent listens, or will once the guest is up."""

    @property
    def pid(self) -> int:
        """The host process that stands for the machine: what Create reports to the manager."""

    def console_tail(self) -> tuple[str, ...]:
        """The last lines of the guest's console and the hypervisor's stderr, oldest first."""

    async def wait(self) -> VmExit:
        """Wait for the machine's end, of whatever cause. Any number of waiters; cancelling one is harmless."""

    async def attach(self, device: Device) -> GuestDevice:
        """Hot-plug a device; one of the host's (VFIO) that is there from the start is only found again.

        Raises:
            HypervisorError: The device does not fit, or the machine refused it.
        """

    async def detach(self, device: GuestDevice) -> None:
        """Take out a device that was plugged in, once the guest has let go of it. Shared directories stay.

        Raises:
            HypervisorError: It was not plugged in, cannot be taken out, or the guest does not let go of it.
        """


@dataclass(frozen=True, slots=True)
class Ports:
    """What a guest offers besides its agent's calls; each None where it was not asked for.

    Attributes:
        log: Where the agent's log is read.
        debug_console: Where a shell answers.
    """

    log: Address | None = None
    debug_console: Address | None = None


@runtime_checkable
class OffersPorts(Protocol):
    """A machine that has the ports that its spec asks for."""

    @property
    def ports(self) -> Ports:
        """Where they are reached, or will be once the guest is up."""


@runtime_checkable
class GrowsDisks(Protocol):
    """A machine whose disks can become larger while it runs."""

    async def grow_disk(self, device: GuestDevice, size: int) -> None:
        """Let a plugged-in disk have so many bytes; an image file is made that long first.

        Raises:
            HypervisorError: It was not plugged in, is larger already, or the machine refused.
        """


@runtime_checkable
class Resizable(Protocol):
    """An ability that a `Vm` may have: to grow and shrink while it runs."""

    @property
    def size(self) -> Size:
        """How large it is now."""

    async def resize(self, wanted: Size, *, block: int) -> Size:
        """Go one step towards a size, as far as the machine can; more of the same may follow.

        One step gives no more memory than the guest can take in before it has put it to use. Whoever calls lets the
        guest do so, and calls again until the size is reached, or is that of the step before.

        Args:
            wanted: Processors and memory in all.
            block: MiB that the guest takes memory in.

        Returns:
            The size that was reached; smaller than wanted where the machine's limits or the guest are in the way.

        Raises:
            HypervisorError: The machine refused, or is gone.
        """


@runtime_checkable
class VcpuThreads(Protocol):
    """An ability that a `Vm` may have: to name the host's threads that run the guest's processors."""

    async def vcpu_threads(self) -> tuple[int, ...]:
        """The threads' ids, in the order of the processors.

        Raises:
            HypervisorError: The machine does not say, or is gone.
        """


class Hypervisor(Protocol):
    """A driver: makes virtual machines from specs."""

    name: str

    def launch(self, spec: VmSpec, journal: Journal) -> AbstractAsyncContextManager[Vm]:
        """Start a machine; leaving the context ends it and removes all that was made for it.

        Entering returns once the machine's processes run; it does not wait for the guest to boot.

        Raises:
            HypervisorError: It could not be started; nothing is left behind.
        """
