"""Network interfaces."""

from __future__ import annotations

from dataclasses import dataclass

from kata_qemu.bus import Place
from kata_qemu.parts import Part, Properties, TapBackend


@dataclass(frozen=True, slots=True)
class Interface:
    """A virtio network interface on a tap device.

    Attributes:
        name: Its host side's name.
        mac: Its hardware address.
        taps: A descriptor for each queue pair.
        vhosts: As many of vhost-net, or none.
        mtu: What the guest's driver starts with, in bytes.
        place: Where it sits.
    """

    name: str
    mac: str
    taps: tuple[int, ...]
    vhosts: tuple[int, ...]
    mtu: int
    place: Place

    @property
    def id(self) -> str:
        """The name of the guest's side."""
        return f"virtio-{self.name}"

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`. Without a ROM: no guest boots from the network, and not every host has the file."""
        queues = len(self.taps)
        several: Properties = {"mq": True} if queues > 1 else {}
        pci: Properties = {"vectors": 2 * queues + 2, "romfile": ""}  # one for each ring, control and configuration
        properties: Properties = {"netdev": self.name, "mac": self.mac, "host_mtu": self.mtu, **several}
        return (
            TapBackend(self.name, self.taps, self.vhosts),
            self.place.device("virtio-net", self.id, properties, pci=pci),
        )
