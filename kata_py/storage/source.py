"""What a mount's source on the host is: looked at once, so that deciding what becomes of it needs no I/O."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kata_py.resource import mount
from kata_py.storage import direct
from kata_py.storage.direct import DirectVolume

_SYSFS_BLOCK = Path("/sys/dev/block")


class Kind(enum.Enum):
    """What lies at a path."""

    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"
    BLOCK_DEVICE = "block device"
    OTHER = "other"  # a character device, socket or fifo


@dataclass(frozen=True, slots=True)
class Source:
    """A mount's source.

    Attributes:
        path: Where it is.
        kind: What it is.
        fstype: The type of the file system mounted exactly there; empty if none is.
        size: Bytes that file system holds at most; 0 is no limit.
        block_size: Bytes of one block of it: of hugetlbfs, the size of its pages.
        group: Its group's id.
        mode: Its permission bits.
        read_only: Whether a block device cannot be written.
        direct: The volume that a storage driver hands over under this path.
    """

    path: Path
    kind: Kind
    fstype: str = ""
    size: int = 0
    block_size: int = 0
    group: int = 0
    mode: int = 0o755
    read_only: bool = False
    direct: DirectVolume | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What the host has of what a container's spec names.

    Attributes:
        paths: What lies at the paths.
        disks: The nodes of block devices, by number.
    """

    paths: Mapping[Path, Source] = field(default_factory=dict)
    disks: Mapping[tuple[int, int], Path] = field(default_factory=dict)

    @classmethod
    def find(cls, paths: Iterable[Path], numbers: Iterable[tuple[int, int]]) -> Sources:
        """Look for all of them; blocks, and raises, as `examine`."""
        disks = {number: block_device(*number) for number in numbers}
        return cls({path: examine(path) for path in paths}, {number: node for number, node in disks.items() if node})

    def at(self, path: Path) -> Source:
        """What lies at a path; one that was not looked at is taken for a directory."""
        return self.paths.get(path, Source(path, Kind.DIRECTORY))


def examine(path: Path) -> Source:
    """Look at a path. Blocks: a network's file system may take its time.

    Raises:
        StorageError: A storage driver's description of the volume there cannot be used.
    """
    volume = direct.find(path)
    if volume is not None:
        return Source(path, Kind.DIRECTORY, direct=volume, read_only=_is_read_only_disk(volume.device))
    try:
        status = path.stat()
    except OSError:
        return Source(path, Kind.MISSING)
    if stat.S_ISBLK(status.st_mode):
        return Source(path, Kind.BLOCK_DEVICE, read_only=_is_read_only(status.st_rdev))
    if stat.S_ISREG(status.st_mode):
        return Source(path, Kind.FILE, group=status.st_gid, mode=stat.S_IMODE(status.st_mode))
    if not stat.S_ISDIR(status.st_mode):
        return Source(path, Kind.OTHER)
    fstype = mount.fstype_at(str(path))
    size = block_size = 0
    if fstype:
        room = os.statvfs(path)
        size, block_size = room.f_blocks * room.f_frsize, room.f_bsize
    return Source(path, Kind.DIRECTORY, fstype, size, block_size, status.st_gid, stat.S_IMODE(status.st_mode))


def block_device(major: int, minor: int, sysfs: Path = _SYSFS_BLOCK) -> Path | None:
    """The node of a block device by its number, as the kernel names it; None if there is no such device."""
    try:
        lines = (sysfs / f"{major}:{minor}" / "uevent").read_text().splitlines()
    except OSError:
        return None
    name = next((line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")), "")
    return Path("/dev", name) if name else None


def _is_read_only_disk(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # told when it is plugged in
        return False
    return stat.S_ISBLK(status.st_mode) and _is_read_only(status.st_rdev)


def _is_read_only(device: int) -> bool:
    try:
        return (_SYSFS_BLOCK / f"{os.major(device)}:{os.minor(device)}" / "ro").read_text().strip() == "1"
    except OSError:
        return False
