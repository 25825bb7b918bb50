"""A FAT32 file system with one file, whose sectors follow one another.

That they do is why it is written here: a boot loader without file systems finds parts of the file by their place.
Source: Microsoft's FAT specification, version 1.03.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from image.errors import BuildError
from image.gpt import SECTOR, aligned

_RESERVED = 32  # sectors before the first table
_TABLES = 2
_LEAST_CLUSTERS = 65525  # with less it would be FAT16
_END = 0x0FFFFFFF
_DIRECTORY, _LABEL = 0x10, 0x08
_DATE = 0x21  # the first day there is: 1980-01-01
_LABEL_NAME = b"KATA       "


class FileSystem(NamedTuple):
    """A file system: its bytes, less the zeros at its end, and the sector in it at which the file begins."""

    data: bytes
    file: int


def file_system(size: int, path: str, data: bytes) -> FileSystem:
    """Make one; clusters are sectors.

    Args:
        size: Bytes of the whole.
        path: The file's, of names with eight capitals and three.
        data: Its content.

    Raises:
        BuildError: It does not fit, or would be no FAT32.
    """
    sectors = size // SECTOR
    table = aligned((sectors - _RESERVED) * 4, SECTOR) // SECTOR  # a little more than it needs
    start = _RESERVED + _TABLES * table
    clusters = sectors - start
    *directories, name = path.split("/")
    length = aligned(len(data), SECTOR) // SECTOR
    first = 3 + len(directories)  # numbers of clusters begin with 2, which is the root's
    if clusters < max(_LEAST_CLUSTERS, first - 2 + length):
        raise BuildError(f"{path} of {len(data)} bytes does not fit into {size}", "see the sizes in disk.py")
    chains = [0x0FFFFFF8, _END, *[_END] * (first - 2), *range(first + 1, first + length), _END]
    content = _directory(_entry(_LABEL_NAME, _LABEL, 0), _below(directories, name, 0, first, len(data)))
    for depth in range(1, first - 2):
        above = depth + 1 if depth > 1 else 0  # the root is called 0
        dots = _entry(b".          ", _DIRECTORY, depth + 2) + _entry(b"..         ", _DIRECTORY, above)
        content += _directory(dots, _below(directories, name, depth, first, len(data)))
    head = _boot_sector(sectors, table) + _information(clusters - (first - 2) - length, first + length)
    reserved = (head.ljust(6 * SECTOR, b"\0") + head).ljust(_RESERVED * SECTOR, b"\0")
    tables = struct.pack(f"<{len(chains)}I", *chains).ljust(table * SECTOR, b"\0") * _TABLES
    return FileSystem(reserved + tables + content + data, start + first - 2)


def _boot_sector(sectors: int, table: int) -> bytes:
    sector = b"\xeb\x58\x90KATA    " + struct.pack(
        "<HBHBHHBHHHIIIHHIHH12xBBBI11s8s",
        *(SECTOR, 1, _RESERVED, _TABLES, 0, 0, 0xF8, 0, 63, 255, 0, sectors),  # what any FAT has
        *(table, 0, 0, 2, 1, 6),  # FAT32: the root's cluster, where the information is, where this sector is again
        *(0x80, 0, 0x29, 0x6B617461, _LABEL_NAME, b"FAT32   "),
    )
    return sector.ljust(510, b"\0") + b"\x55\xaa"


def _information(free: int, following: int) -> bytes:
    head = b"RRaA".ljust(484, b"\0")
    return head + b"rrAa" + struct.pack("<II", free, following) + bytes(14) + b"\x55\xaa"


def _below(directories: list[str], name: str, depth: int, first: int, size: int) -> bytes:
    """The entry of what lies in the directory at a depth."""
    if depth < len(directories):
        return _entry(_short(directories[depth]), _DIRECTORY, depth + 3)
    return _entry(_short(name), 0x20, first, size)


def _short(name: str) -> bytes:
    stem, _, extension = name.partition(".")
    return f"{stem:8}{extension:3}".encode()


def _entry(name: bytes, attributes: int, cluster: int, size: int = 0) -> bytes:
    high, low = divmod(cluster, 1 << 16)
    return struct.pack("<11sB8xHHHHI", name, attributes, high, 0, _DATE, low, size)


def _directory(*entries: bytes) -> bytes:
    return b"".join(entries).ljust(SECTOR, b"\0")
