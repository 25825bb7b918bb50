"""A disk's partition table, GPT; identifiers follow from names, so the same disk has the same bytes.

Source: UEFI specification 2.10, chapter 5.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from typing import NamedTuple

SECTOR = 512  # bytes
ALIGNMENT = 2048  # sectors, where partitions begin: a mebibyte, as everywhere
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
RESERVED = "8da63339-0007-60c0-c436-083ac8230908"
_ENTRIES, _ENTRY = 128, 128  # how many, and bytes of each
_TABLE = _ENTRIES * _ENTRY // SECTOR  # sectors
_HEADER = 92  # bytes
_NAMES = uuid.UUID("6b617461-7079-4469-b36b-000000000000")


class Partition(NamedTuple):
    """A partition.

    Attributes:
        label: Its name, at most 36 characters.
        kind: The GUID of its type.
        first: Its first sector.
        sectors: How many it has.
    """

    label: str
    kind: str
    first: int
    sectors: int


def place(sizes: Sequence[tuple[str, str, int]]) -> tuple[tuple[Partition, ...], int]:
    """Partitions one after the other, and the sectors of the disk that holds them.

    Args:
        sizes: Label, type and bytes of each.
    """
    partitions = []
    free = ALIGNMENT
    for label, kind, size in sizes:
        partitions.append(Partition(label, kind, free, aligned(size, SECTOR) // SECTOR))
        free = aligned(free + partitions[-1].sectors, ALIGNMENT)
    return tuple(partitions), free + ALIGNMENT


def tables(partitions: Sequence[Partition], sectors: int) -> tuple[bytes, bytes]:
    """The first sectors of a disk, and its last.

    Args:
        partitions: In the order of their numbers.
        sectors: Of the whole disk.
    """
    entries = b"".join(_entry(partition) for partition in partitions).ljust(_TABLE * SECTOR, b"\0")
    last = sectors - 1
    first = _protection(sectors) + _header(1, last, 2, sectors, entries) + entries
    return first, entries + _header(last, 1, last - _TABLE, sectors, entries)


def aligned(number: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-number // unit) * unit


def _entry(partition: Partition) -> bytes:
    last = partition.first + partition.sectors - 1
    own = uuid.uuid5(_NAMES, partition.label)
    name = partition.label.encode("utf-16-le").ljust(72, b"\0")
    return struct.pack(
        "<16s16sQQQ72s", uuid.UUID(partition.kind).bytes_le, own.bytes_le, partition.first, last, 0, name
    )


def _header(here: int, other: int, entries_at: int, sectors: int, entries: bytes) -> bytes:
    usable = (2 + _TABLE, sectors - _TABLE - 2)
    end = (entries_at, _ENTRIES, _ENTRY, zlib.crc32(entries))

    def header(checksum: int) -> bytes:
        start = (b"EFI PART", 0x10000, _HEADER, checksum, 0)
        return struct.pack("<8sIIIIQQQQ16sQIII", *start, here, other, *usable, _NAMES.bytes_le, *end)

    return header(zlib.crc32(header(0))).ljust(SECTOR, b"\0")


def _protection(sectors: int) -> bytes:
    """For who knows no GPT: the disk is full."""
    partition = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return bytes(446) + partition + bytes(48) + b"\x55\xaa"
