"""Shared directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_qemu.bus import Place
from kata_qemu.parts import Part, Properties, SocketChardev


@dataclass(frozen=True, slots=True)
class Share:
    """A directory that virtiofsd serves, as a virtio-fs device. The guest's memory must be shared.

    Attributes:
        id: Its name.
        tag: What the guest mounts.
        socket: Where virtiofsd listens.
        place: Where it sits.
        queue_size: Entries of the request queue.
    """

    id: str
    tag: str
    socket: Path
    place: Place
    queue_size: int = 1024

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        properties: Properties = {"chardev": f"{self.id}-socket", "tag": self.tag, "queue-size": self.queue_size}
        return (
            SocketChardev(f"{self.id}-socket", self.socket),
            self.place.device("vhost-user-fs", self.id, properties),
        )
