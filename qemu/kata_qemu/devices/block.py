"""Disks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_py.config.hypervisor import BlockConfig
from kata_qemu.bus import SCSI_CONTROLLER, Place
from kata_qemu.parts import Backend, BlockNode, Part, Properties

SERIAL_MAX = 20  # bytes: VIRTIO_BLK_ID_BYTES


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw image file or block device of the host, as a virtio-blk or SCSI disk.

    Attributes:
        serial: Its name in the guest; at most `SERIAL_MAX` bytes.
        path: The file or device.
        place: Where it sits.
        read_only: Whether neither the guest nor QEMU may write; such a file may serve many machines at once.
        host_device: Whether the path is a block device.
        tuning: How it is read and written, and its sectors; None leaves all of it to QEMU.
        iothread: The thread that serves it; empty is QEMU's own, or that of its SCSI controller.
    """

    serial: str
    path: Path
    place: Place
    read_only: bool = False
    host_device: bool = False
    tuning: BlockConfig | None = None
    iothread: str = ""

    @property
    def id(self) -> str:
        """Its name in QEMU."""
        return f"disk-{self.serial}"

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        file: Properties = {"driver": "host_device" if self.host_device else "file", "filename": self.path}
        access: Properties = {"read-only": True} if self.read_only else {"discard": "unmap"}
        node = f"{self.id}-node"  # QEMU takes 31 bytes
        return (
            BlockNode("raw", node, {**access, **self._cache(), "file": {**file, **self._aio()}}),
            self.place.device(
                self.place.disk,
                self.id,
                {"drive": node, "serial": self.serial, **self._sectors(), **_served_by(self.iothread)},
            ),
        )

    def _aio(self) -> Properties:
        return {"aio": self.tuning.block_device_aio} if self.tuning else {}

    def _cache(self) -> Properties:
        """The file below takes these over. QEMU has Linux AIO only past the page cache."""
        tuning = self.tuning
        if tuning is None or not (tuning.block_device_cache_set or tuning.block_device_aio == "native"):
            return {}
        direct = tuning.block_device_cache_direct or tuning.block_device_aio == "native"
        return {"cache": {"direct": direct, "no-flush": tuning.block_device_cache_noflush}}

    def _sectors(self) -> Properties:
        if self.tuning is None:
            return {}
        logical = self.tuning.block_device_logical_sector_size
        physical = self.tuning.block_device_physical_sector_size or logical  # QEMU's choice would be 512, and too small
        sizes = {"logical_block_size": logical, "physical_block_size": physical}
        return {name: size for name, size in sizes.items() if size}


@dataclass(frozen=True, slots=True)
class ScsiController:
    """What SCSI disks are at.

    Attributes:
        place: Where it sits.
        iothread: The thread that serves its disks; empty is QEMU's own.
    """

    place: Place
    iothread: str = ""

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (self.place.device("virtio-scsi", SCSI_CONTROLLER, _served_by(self.iothread)),)


def _served_by(iothread: str) -> Properties:
    return {"iothread": iothread} if iothread else {}


def iothread(id: str) -> Part:
    """A thread for disks."""
    return Backend("iothread", id)


def io_uring_obstacle(root: Path = Path("/")) -> str:
    """Why the host's kernel gives nobody an io_uring; empty if it does.

    Source: Linux `Documentation/admin-guide/sysctl/kernel.rst`.
    """
    setting = root / "proc/sys/kernel/io_uring_disabled"
    try:
        disabled = setting.read_text().strip() == "2"
    except OSError:  # an older kernel, without the switch
        return ""
    return f"{setting} is 2" if disabled else ""
