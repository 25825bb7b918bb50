"""Where a device sits in the guest: a slot of PCI Express, or a device number of the channel subsystem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.parts import Frontend, Part, Properties

NONE: Properties = MappingProxyType({})


class Place(Protocol):
    """Where one device sits."""

    @property
    def guest_address(self) -> str:
        """How the agent is told of it: kata's PCI path (`02/00`), or a CCW bus id (`0.0.0002`)."""

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """A device of the kind, such as `virtio-blk`, at this place; `pci` are properties that only PCI has."""


@dataclass(frozen=True, slots=True)
class PciPlace:
    """A slot of the root bus or, with a port's id, the one slot behind that root port.

    Attributes:
        slot: The slot on the root bus: the device's own, or its port's.
        port: The root port's id.
    """

    slot: int
    port: str = ""

    @property
    def guest_address(self) -> str:
        """As `Place.guest_address`: the slots on the way, in hexadecimal. Source: kata `types/pcipath.go`."""
        return f"{self.slot:02x}/00" if self.port else f"{self.slot:02x}"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`."""
        place: Properties = {"bus": self.port} if self.port else {"bus": "pcie.0", "addr": f"{self.slot:#x}"}
        return Frontend(f"{kind}-pci", id, {**place, **properties, **pci})


@dataclass(frozen=True, slots=True)
class CcwPlace:
    """A device number; any may be plugged at any time."""

    number: int

    @property
    def guest_address(self) -> str:
        """As `Place.guest_address`."""
        return f"0.0.{self.number:04x}"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`. QEMU puts virtual devices into channel subsystem 0xfe, which the guest sees as 0."""
        return Frontend(f"{kind}-ccw", id, {"devno": f"fe.0.{self.number:04x}", **properties})


class Bus(Protocol):
    """Hands out the places of one machine, in order.

    Both calls raise HypervisorError when all are taken.
    """

    def place(self) -> Place:
        """A place for a device that is there from the start."""

    def port(self) -> tuple[Place, tuple[Part, ...]]:
        """A place that a device can also be plugged into later, and the parts that make it."""


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
        return PciPlace(slot, port.id), (port,)


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


def _next(numbers: Iterator[int]) -> int:
    for number in numbers:
        return number
    raise HypervisorError("qemu", "the machine's bus is full", hint="give the sandbox fewer devices")
