"""Disks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_qemu.bus import Place
from kata_qemu.parts import BlockNode, Part

SERIAL_MAX = 20  # bytes: VIRTIO_BLK_ID_BYTES


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw image file or block device of the host, as a virtio-blk disk.

    Attributes:
        serial: Its name in the guest; at most `SERIAL_MAX` bytes.
        path: The file or device.
        place: Where it sits.
        read_only: Whether neither the guest nor QEMU may write; such a file may serve many machines at once.
        host_device: Whether the path is a block device.
    """

    serial: str
    path: Path
    place: Place
    read_only: bool = False
    host_device: bool = False

    @property
    def id(self) -> str:
        """Its name in QEMU."""
        return f"disk-{self.serial}"

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        file = {"driver": "host_device" if self.host_device else "file", "filename": self.path}
        access = {"read-only": True} if self.read_only else {"discard": "unmap"}
        node = f"{self.id}-node"  # QEMU takes 31 bytes
        return (
            BlockNode("raw", node, {**access, "file": file}),
            self.place.device("virtio-blk", self.id, {"drive": node, "serial": self.serial}),
        )
