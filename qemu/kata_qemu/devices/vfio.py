"""Devices of the host that the guest drives, and the ports that they are plugged into.

Source: QEMU `hw/vfio/{pci,ap,ccw}.c`, `docs/pcie.txt`; kata `virtcontainers/qemu_arch_base.go`, whose names of switch
ports are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kata_py.config.hypervisor import VfioPort
from kata_py.hypervisor.api import HypervisorError, VfioDevice, VfioKind
from kata_qemu.bus import NONE, Bus, PciPlace, Place
from kata_qemu.parts import Backend, Frontend, Part, Properties

BRIDGE_SLOTS = 30  # of a bridge, as kata counts them


@dataclass(frozen=True, slots=True)
class PortPlace:
    """A slot behind a switch or a bridge.

    Attributes:
        bus: The port's or bridge's id.
        slot: The slot on that bus; a port has slot 0 alone.
        guest_address: As `Place.guest_address`.
    """

    bus: str
    slot: int
    guest_address: str
    disk: ClassVar[str] = "virtio-blk"
    driver: ClassVar[str] = "blk"

    def device(self, kind: str, id: str, properties: Properties, *, pci: Properties = NONE) -> Frontend:
        """As `Place.device`."""
        place: Properties = {"bus": self.bus, "addr": f"{self.slot:#x}"}
        return Frontend(f"{kind}-pci", id, {**place, **properties, **pci})


@dataclass(frozen=True, slots=True)
class Vfio:
    """A device of the host.

    Attributes:
        device: The device.
        place: Where it sits; crypto queues sit on no bus, and have it to themselves all the same.
    """

    device: VfioDevice
    place: Place

    @property
    def id(self) -> str:
        """Its name in QEMU."""
        return self.device.id

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        device = self.device
        if device.kind is VfioKind.AP:
            return (Frontend("vfio-ap", self.id, {"sysfsdev": device.sysfs}),)
        if device.kind is not VfioKind.PCI:
            return (self.place.device("vfio", self.id, {"sysfsdev": device.sysfs}),)
        if not device.iommufd:
            return (self.place.device("vfio", self.id, {"host": device.host}),)
        backend = f"iommufd-{self.id}"
        return (
            Backend("iommufd", backend, {}),
            self.place.device("vfio", self.id, {"host": device.host, "iommufd": backend}),
        )


def ports(kind: VfioPort, count: int, bus: Bus) -> tuple[list[Place], list[Part]]:
    """So many places for devices of the host, and the parts that make them.

    Args:
        kind: Behind what.
        count: How many; a bridge has as many as it has slots.
        bus: The machine's bus.

    Raises:
        HypervisorError: The bus is full, or has no such ports.
    """
    if kind == "no-port" or count == 0:
        return [], []
    places: list[Place] = []
    parts: list[Part] = []
    if kind == "bridge-port":
        place = bus.place()
        if not isinstance(place, PciPlace):
            raise _no_pci(kind)
        slot, id = place.slot, "pci-bridge-vfio"
        bridge: Properties = {"bus": "pcie.0", "addr": f"{slot:#x}", "chassis_nr": 1, "shpc": False}
        parts.append(Frontend("pci-bridge", id, bridge))
        return [PortPlace(id, n, f"{slot:02x}/{n:02x}") for n in range(1, BRIDGE_SLOTS + 1)], parts
    if kind == "root-port":
        for _ in range(count):
            place, made = bus.port()
            places.append(place)
            parts += made
        return places, parts
    place, made = bus.port()
    if not isinstance(place, PciPlace):
        raise _no_pci(kind)
    parts += [*made, Frontend("x3130-upstream", "swup0", {"bus": place.bus})]
    for n in range(count):
        id = f"swdp{n}"
        down: Properties = {"bus": "swup0", "addr": f"{n:#x}", "chassis": 64 + n, "slot": n}
        parts.append(Frontend("xio3130-downstream", id, down))
        places.append(PortPlace(id, 0, f"{place.guest_address}/{n:02x}/00"))
    return places, parts


def _no_pci(kind: str) -> HypervisorError:
    return HypervisorError("qemu", f"the machine has no PCI for a {kind}", hint='set hot_plug_vfio to "no-port"')
