"""The end of a fixed VHD, which makes a raw disk one.

Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0; all numbers are big-endian.
"""

from __future__ import annotations

import struct
import uuid
from typing import Final

FOOTER: Final = 512  # bytes
ALIGNMENT: Final = 1 << 20  # bytes; Azure takes disks of whole MiB

_FIELDS: Final = struct.Struct(">8s II Q I 4s I 4s QQ HBB II 16s B 427x")
_CHECKSUM: Final = slice(64, 68)
_CREATOR: Final = b"win "  # Hyper-V's: after others, QEMU takes the size from the geometry, which is a bit less
_FIXED: Final = 2
_SECTOR: Final = 512
_MOST_SECTORS: Final = 65535 * 16 * 255


def rounded(size: int) -> int:
    """The bytes of the disk in a VHD of so many bytes of a raw disk."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def footer(size: int, id: uuid.UUID) -> bytes:
    """The footer of a fixed VHD.

    Args:
        size: The disk's bytes, a multiple of `ALIGNMENT`.
        id: The disk's own.
    """
    cylinders, heads, sectors = _geometry(size // _SECTOR)
    made = bytearray(
        _FIELDS.pack(
            b"conectix", 2, 0x00010000, 0xFFFFFFFFFFFFFFFF, 0, _CREATOR, 0x000A0000, b"Wi2k", size, size,
            cylinders, heads, sectors, _FIXED, 0, id.bytes, 0,
        )
    )  # fmt: skip
    made[_CHECKSUM] = struct.pack(">I", ~sum(made) & 0xFFFFFFFF)
    return bytes(made)


def _geometry(total: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors, as the specification's appendix has it; no machine of today uses them."""
    total = min(total, _MOST_SECTORS)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    sectors, heads = 17, max(4, -(-(total // 17) // 1024))
    if total // 17 >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
    if total // sectors >= heads * 1024:
        sectors, heads = 63, 16
    return total // sectors // heads, heads, sectors
