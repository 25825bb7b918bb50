"""Room for images: what a cloud's disk has beyond the one that was built becomes a file system.

A cloud gives a machine a larger disk than its image. The space after the last partition is made known to the kernel as
one more, and nothing is written to the partition table, so each boot begins with it empty. Where there is none, images
are kept in memory. It may be encrypted, with a key that is the kernel's and lives as long as the machine; then what
cannot be encrypted is not used.
Source: Linux `include/uapi/linux/blkpg.h`, `Documentation/ABI/stable/sysfs-block`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from kata_caa.errors import AdaptorError
from kata_caa.forwarder import mapper

PLACE: Final = Path("/run/kata-containers/image")
"""Where images are kept."""

MINIMUM: Final = 256 << 20
"""Bytes below which it is not worth while: memory has as much."""

_SECTOR = 512  # bytes: sysfs counts in them, whatever the disk does
_ALIGNMENT = 2048  # sectors; that many after the last partition are the image's own, with its second partition table
_TABLE = 34  # sectors at the end, for whoever moves that table there
_NAME = "kata-images"  # of the device that encrypts
_LOAD_TIMEOUT = 30.0  # seconds
_MAKE_TIMEOUT = 120.0
_MOUNT_TIMEOUT = 30.0
_BLKPG, _ADD_PARTITION = 0x1269, 1
# No journal: what a machine leaves behind nobody reads. The tables are written later, by the kernel.
_MAKE = ("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard")
# What encrypts, and the processor's own AES where it has one; the kernel asks for the mode by itself.
_LOAD = ("busybox", "modprobe", "-qa", "dm_crypt", "aesni_intel", "aes_s390")
_MOUNT = ("busybox", "mount", "-t", "ext4", "-o", "noatime,nodev")


class ScratchError(AdaptorError):
    """The room that a disk has cannot be used."""


class Space(NamedTuple):
    """Free space of a disk.

    Attributes:
        disk: Its name, as in `/dev`.
        number: That of the partition which it would be.
        start: Its first byte.
        size: Bytes.
    """

    disk: str
    number: int
    start: int
    size: int


def mount(place: Path = PLACE, *, encrypted: bool = False) -> Space | None:
    """Mount what the disk with the root has left; once is enough, and more does no harm.

    Args:
        place: Where; made if missing.
        encrypted: Whether nobody shall find there later what was written.

    Returns:
        What is mounted there now; None if there is nothing left, or something is mounted already.

    Raises:
        ScratchError: It cannot be encrypted, made a file system, or mounted.
    """
    if place.is_mount():
        return None
    disk = disk_of(Path("/").stat().st_dev)
    space = None if disk is None else space_after(disk)
    if space is None:
        return None
    try:
        device = Path(f"/dev/{_partition(space)}")
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScratchError(f"no partition in the free space of {space.disk}: {error.strerror}") from error
    if encrypted:
        device = _encrypted(device, space)
    _run(*_MAKE, str(device), timeout=_MAKE_TIMEOUT)
    _run(*_MOUNT, str(device), str(place), timeout=_MOUNT_TIMEOUT)
    return space


def disk_of(device: int, sys: Path = Path("/sys")) -> Path | None:
    """The directory in sysfs of the disk that a partition is of; None if it is no partition.

    Args:
        device: The partition's number, as stat(2) has it.
        sys: Where sysfs is.
    """
    partition = (sys / f"dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    return partition.parent if (partition / "partition").exists() else None


def space_after(disk: Path, minimum: int = MINIMUM) -> Space | None:
    """What a disk has after its last partition; None if it is too little.

    Args:
        disk: Its directory in sysfs.
        minimum: Bytes.
    """
    number = end = 0
    for partition in (path.parent for path in disk.glob("*/partition")):
        number = max(number, _number(partition / "partition"))
        end = max(end, _number(partition / "start") + _number(partition / "size"))
    start = -(-end // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT
    sectors = (_number(disk / "size") - _TABLE - start) // _ALIGNMENT * _ALIGNMENT
    if sectors * _SECTOR < minimum:
        return None
    return Space(disk.name, number + 1, start * _SECTOR, sectors * _SECTOR)


class _Partition(ctypes.Structure):
    """The kernel's `struct blkpg_partition`."""

    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("device", ctypes.c_char * 64),
        ("volume", ctypes.c_char * 64),
    )


class _Request(ctypes.Structure):
    """The kernel's `struct blkpg_ioctl_arg`."""

    _fields_ = (
        ("operation", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


def _partition(space: Space) -> str:
    """Tell the kernel of a partition; returns its name."""
    partition = _Partition(space.start, space.size, space.number)
    address = ctypes.addressof(partition)
    request = _Request(_ADD_PARTITION, 0, ctypes.sizeof(partition), address)
    disk = os.open(f"/dev/{space.disk}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(disk, _BLKPG, bytes(request))
    finally:
        os.close(disk)
    return f"{space.disk}p{space.number}" if space.disk[-1].isdigit() else f"{space.disk}{space.number}"


def _encrypted(device: Path, space: Space) -> Path:
    with suppress(ScratchError):  # what is built in need not be loaded, and what is missing is told below
        _run(*_LOAD, timeout=_LOAD_TIMEOUT)
    try:
        return mapper.encrypt(_NAME, device, space.size // mapper.SECTOR)
    except mapper.MapperError as error:
        raise ScratchError(
            f"the free space of {space.disk} is not used, as it cannot be encrypted: {error} (does the image have "
            "dm_crypt, xts and ecb for its kernel?)"
        ) from error


def _run(*command: str, timeout: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScratchError(f"{command[0]} for images: {error}") from error
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise ScratchError(f"{' '.join(command)} failed: {said}")


def _number(path: Path) -> int:
    return int(path.read_text())
