"""A file of an ISO 9660 volume's root, read without mounting it: no kernel's driver is needed, and none is exposed to
what is on a disk.

Names are Joliet's, else Rock Ridge's, else the plain ones in lower case without their version, as Linux shows them.
Source: ECMA-119, 6.2, 8.4, 9.1; Joliet specification, "Escape Sequences"; IEEE P1282 (Rock Ridge), 4.1.4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kata_caa.errors import ForwarderError

_SECTOR: Final = 2048  # bytes
_FIRST_DESCRIPTOR: Final = 16  # sector
_DESCRIPTORS_MAX: Final = 32
_DIRECTORY_MAX: Final = 64 << 10  # bytes of the root directory that are looked through
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_EXTENT: Final = struct.Struct("<2xI4xI")  # of a directory record: where it is, and its bytes; big-endian ones between


class _Record(NamedTuple):
    """A directory record: names that it goes by, best first; its first sector, its length in bytes."""

    names: tuple[str, ...]
    sector: int
    length: int


def label(disk: Path) -> str:
    """The name of the disk's volume; empty if it has none, or cannot be read."""
    try:
        fd = _open(disk)
    except OSError:
        return ""  # a drive without a disk, mostly
    try:
        descriptor = _sector(fd, _FIRST_DESCRIPTOR)
    except OSError:
        return ""
    finally:
        os.close(fd)
    return descriptor[40:72].decode("ascii", "replace").rstrip(" \0") if descriptor[:6] == b"\x01CD001" else ""


def read(disk: Path, name: str, limit: int) -> bytes:
    """A file of the root directory.

    Args:
        disk: The device, or an image.
        name: The file's name.
        limit: Bytes that are read at most.

    Raises:
        ForwarderError: There is no such file, or the volume cannot be read.
    """
    try:
        fd = _open(disk)
    except OSError as error:
        raise ForwarderError(f"{disk} cannot be read: {error.strerror}") from error
    try:
        for record in _root(fd):
            if name in record.names:
                return _extent(fd, record.sector, min(record.length, limit))
    except (OSError, struct.error, IndexError, ValueError) as error:
        raise ForwarderError(f"{disk} cannot be read as a volume of ISO 9660: {error}") from error
    finally:
        os.close(fd)
    raise ForwarderError(f"{disk} has no file {name}")


def _open(disk: Path) -> int:
    return os.open(disk, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _sector(fd: int, number: int) -> bytes:
    return os.pread(fd, _SECTOR, number * _SECTOR)


def _extent(fd: int, sector: int, length: int) -> bytes:
    data = os.pread(fd, length, sector * _SECTOR)
    if len(data) < length:
        raise ValueError("it is cut short")
    return data


def _root(fd: int) -> Iterator[_Record]:
    """The records of the root directory."""
    roots: dict[bool, bytes] = {}  # by whether it is Joliet's
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _DESCRIPTORS_MAX):
        descriptor = _sector(fd, number)
        if descriptor[1:6] != b"CD001" or descriptor[0] == 255:
            break
        if descriptor[0] == 1:
            roots.setdefault(False, descriptor[156:190])
        elif descriptor[0] == 2 and descriptor[88:91] in _JOLIET:
            roots.setdefault(True, descriptor[156:190])
    if not roots:
        raise ValueError("it has no volume descriptor")
    joliet = True in roots
    sector, length = _EXTENT.unpack_from(roots[joliet])
    directory = _extent(fd, sector, min(length, _DIRECTORY_MAX))
    at = 0
    while at < len(directory):
        size = directory[at]
        if not size:  # the rest of a sector that no record fits in
            at += _SECTOR - at % _SECTOR
            continue
        record = directory[at : at + size]
        at += size
        if not record[25] & 2:  # not a directory
            start, length = _EXTENT.unpack_from(record)
            yield _Record(_names(record, joliet), start, length)


def _names(record: bytes, joliet: bool) -> tuple[str, ...]:
    end = 33 + record[32]
    identifier = record[33:end]
    if joliet:
        return (identifier.decode("utf-16-be", "replace").partition(";")[0],)
    plain = identifier.decode("ascii", "replace").partition(";")[0].rstrip(".").lower()
    return *_rock_ridge(record[end + 1 - record[32] % 2 :]), plain


def _rock_ridge(area: bytes) -> Iterator[str]:
    name = b""
    while len(area) >= 4 and area[2] >= 4:
        if area[:2] == b"NM":
            name += area[5 : area[2]]
        area = area[area[2] :]
    if name:
        yield name.decode("utf-8", "replace")
