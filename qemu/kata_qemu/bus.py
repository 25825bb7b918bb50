"""Where a device sits in the guest: a slot of PCI, a device number of the channel subsystem, or a SCSI address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.parts import Frontend, Part, Properties

SCSI_CONTROLLER = "scsi0"

NONE: Properties = MappingProxyType({})
_BRIDGE_SLOTS = range(1, 31)  # as upstream's, whose guests' addresses begin at 1
_BRIDGE_ROOM: Properties = {"io-reserve": "4k", "mem-reserve": "1m", "pref64-reserve": "1m"}  # enough for all of them
_NUMBERS_FOR_LATER = 32
_LUNS = 256  # of one SCSI target


class Place(Protocol):
    """Where one device sits."""

    @property
    def guest_address(self) -> str:
        """How the agent is told of it: kata's PCI path (`02/00`), a CCW bus id (`0.0.0002`), or `id:lun` of SCSI."""

    @property
    def disk(self) -> str:
        """The kind of device that a disk is here: `virtio-blk`, `scsi-hd`."""

    @property
    def driver(self) -> str:
        """How the agent calls the way to find a disk here: `blk`, `blk-ccw`, `scsi`."""

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """A device of the kind, such as `virtio-blk`, at this place; `pci` are properties that only PCI has."""


@dataclass(frozen=True, slots=True)
class PciPlace:
    """A slot of the root bus, or of a bus behind a root port or a bridge.

    Attributes:
        slot: The slot on its bus. Behind a root port it is 0, the only one.
        bus: That bus's id.
        above: The slot on the root bus of the port or bridge before it; None on the root bus itself.
    """

    slot: int
    bus: str = "pcie.0"
    above: int | None = None
    disk: ClassVar[str] = "virtio-blk"
    driver: ClassVar[str] = "blk"

    @property
    def guest_address(self) -> str:
        """As `Place.guest_address`: the slots on the way, in hexadecimal. Source: kata `types/pcipath.go`."""
        return f"{self.slot:02x}" if self.above is None else f"{self.above:02x}/{self.slot:02x}"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`."""
        slot: Properties = {"addr": f"{self.slot:#x}"} if self.slot else {}
        return Frontend(f"{kind}-pci", id, {"bus": self.bus, **slot, **properties, **pci})


@dataclass(frozen=True, slots=True)
class CcwPlace:
    """A device number; any may be plugged at any time."""

    number: int
    disk: ClassVar[str] = "virtio-blk"
    driver: ClassVar[str] = "blk-ccw"

    @property
    def guest_address(self) -> str:
        """As `Place.guest_address`."""
        return f"0.0.{self.number:04x}"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`. QEMU puts virtual devices into channel subsystem 0xfe, which the guest sees as 0."""
        return Frontend(f"{kind}-ccw", id, {"devno": f"fe.0.{self.number:04x}", **properties})


@dataclass(frozen=True, slots=True)
class ScsiPlace:
    """The address of a disk at the SCSI controller. Source: kata `pkg/device/drivers/utils.go` (GetSCSIIdLun).

    Attributes:
        number: Of the disk, from 0.
    """

    number: int
    disk: ClassVar[str] = "scsi-hd"
    driver: ClassVar[str] = "scsi"

    @property
    def guest_address(self) -> str:
        """As `Place.guest_address`: target and logical unit, in decimal."""
        target, lun = divmod(self.number, _LUNS)
        return f"{target}:{lun}"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`."""
        target, lun = divmod(self.number, _LUNS)
        place: Properties = {"bus": f"{SCSI_CONTROLLER}.0", "scsi-id": target, "lun": lun}
        return Frontend(kind, id, {**place, **properties})


class Bus(Protocol):
    """Hands out the places of one machine, in order.

    All calls raise HypervisorError when all are taken.
    """

    def place(self) -> Place:
        """A place for a device that is there from the start."""

    def port(self) -> tuple[Place, tuple[Part, ...]]:
        """A place that a device can also be plugged into later, and the parts that make it."""

    def for_later(self, bridges: int) -> tuple[list[Place], tuple[Part, ...]]:
        """All places that devices can be plugged into later, and the parts that make them.

        Args:
            bridges: How many bridges the machine is to have, where it needs any.
        """


class PciBus:
    """The root bus of q35: slot 0 is the host bridge, 31 the south bridge."""

    def __init__(self) -> None:
        self._slots = iter(range(1, 31))

    def place(self) -> Place:
        """As `Bus.place`."""
        return PciPlace(_next(self._slots))

    def port(self) -> tuple[Place, tuple[Part, ...]]:
        """As `Bus.port`: a root port for the one device."""
        slot = _next(self._slots)
        port = Frontend("pcie-root-port", f"port{slot}", {"bus": "pcie.0", "addr": f"{slot:#x}", "chassis": slot})
        return PciPlace(0, port.id, slot), (port,)

    def for_later(self, bridges: int) -> tuple[list[Place], tuple[Part, ...]]:
        """As `Bus.for_later`: conventional bridges, whose slots the guest's ACPI looks after, without a port for each.

        Firmware gives a bridge that is empty no address space unless it is asked to, and the bridge's own controller
        (SHPC) would wait five seconds with each device, for somebody to press its button.
        """
        places: list[Place] = []
        parts: list[Part] = []
        for number in range(bridges):
            slot, id = _next(self._slots), f"pci-bridge-{number}"
            place: Properties = {"bus": "pcie.0", "addr": f"{slot:#x}", "chassis_nr": number + 1, "shpc": False}
            parts.append(Frontend("pci-bridge", id, {**place, **_BRIDGE_ROOM}))
            places += [PciPlace(each, id, slot) for each in _BRIDGE_SLOTS]
        return places, tuple(parts)


class CcwBus:
    """The virtual channel subsystem of s390x."""

    def __init__(self) -> None:
        self._numbers = iter(range(1, 1 << 16))

    def place(self) -> Place:
        """As `Bus.place`."""
        return CcwPlace(_next(self._numbers))

    def port(self) -> tuple[Place, tuple[Part, ...]]:
        """As `Bus.port`: a number is enough."""
        return self.place(), ()

    def for_later(self, bridges: int) -> tuple[list[Place], tuple[Part, ...]]:
        """As `Bus.for_later`: numbers, without bridges."""
        return [self.place() for _ in range(_NUMBERS_FOR_LATER)], ()


def _next(numbers: Iterator[int]) -> int:
    for number in numbers:
        return number
    raise HypervisorError("qemu", "the machine's bus is full", hint="give the sandbox fewer devices")
