"""What an s390x machine boots from a disk: a map of blocks, and the memory to load them to.

The firmware reads block 0, follows it to a table of programs, takes the first, loads its components and jumps. There is
no file system and no other program in between; the kernel finds its parameters and its initramfs by words in itself.
Source: QEMU's `docs/devel/s390-dasd-ipl.rst` and `pc-bios/s390-ccw/bootmap.h`; s390-tools' `zipl/include/boot.h`;
Linux `arch/s390/include/asm/setup.h` (the words in the kernel).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from image.errors import BuildError
from image.gpt import SECTOR, aligned

_MAGIC = b"zIPL"
_VERSION = 1
_EXECUTE, _LOAD = 1, 2
_MOST_BLOCKS = 1 << 16  # that one pointer leads to
_MOST_POINTERS = SECTOR // 16 - 1  # of one block, and a zero

_ENTRY = 0x10000  # where the kernel begins, in its file and in memory
_SHORT_PSW = 0x0008000080000000  # of a processor that begins in 31-bit mode
_INITRAMFS_AT = 0x10408  # two words in the kernel: where it is, and how long
_PARAMETERS_AT = 0x10480
_PARAMETERS_LIMIT = 896
_KERNEL_MARK = (0x10008, b"S390EP")
_INITRAMFS_ADDRESS = 32 << 20  # beyond what the kernel unpacks itself to; it moves what is in its way


class Component(NamedTuple):
    """What is loaded, and the address in memory."""

    address: int
    data: bytes


def components(kernel: bytes, initramfs: bytes, parameters: str) -> tuple[Component, ...]:
    """A kernel that knows its initramfs and parameters, and the initramfs.

    Raises:
        BuildError: It is no such kernel, or the parameters are too long.
    """
    place, mark = _KERNEL_MARK
    if kernel[place : place + len(mark)] != mark:
        raise BuildError("the kernel is none of s390x that boots by itself", "see zipl.py")
    line = parameters.encode()
    if len(line) >= _PARAMETERS_LIMIT:
        raise BuildError(f"{len(line)} bytes of kernel parameters, more than {_PARAMETERS_LIMIT - 1}", "shorten them")
    image = bytearray(kernel)
    struct.pack_into(">QQ", image, _INITRAMFS_AT, _INITRAMFS_ADDRESS, len(initramfs))
    image[_PARAMETERS_AT : _PARAMETERS_AT + _PARAMETERS_LIMIT] = line.ljust(_PARAMETERS_LIMIT, b"\0")
    return Component(_ENTRY, bytes(image[_ENTRY:])), Component(_INITRAMFS_ADDRESS, initramfs)


def boot_map(parts: Sequence[Component], at: int) -> bytes:
    """The blocks that hold everything, for the disk's block that they begin at.

    Args:
        parts: What is loaded, the kernel first.
        at: The first block's number.
    """
    tables = at + 2
    content = tables + len(parts)
    head = _MAGIC + bytes(28)  # of a program that is to be started
    pointers = b""
    data = b""
    for number, part in enumerate(parts):
        first = content + len(data) // SECTOR
        blocks = aligned(len(part.data), SECTOR) // SECTOR
        head += _pointer(tables + number, 1) + struct.pack(">7xBQ", _LOAD, part.address)
        pointers += _pointers(first, blocks)
        data += part.data.ljust(blocks * SECTOR, b"\0")
    head += bytes(16) + struct.pack(">7xBQ", _EXECUTE, _SHORT_PSW | _ENTRY)
    programs = _MAGIC + bytes(12) + _pointer(at + 1, 1)
    return programs.ljust(SECTOR, b"\0") + head.ljust(SECTOR, b"\0") + pointers + data


def boot_block(at: int) -> bytes:
    """The beginning of the disk's block 0, for a map that begins at a block."""
    return struct.pack(">4sI8x", _MAGIC, _VERSION) + _pointer(at, 1)


def _pointers(first: int, blocks: int) -> bytes:
    runs = [
        _pointer(first + done, min(_MOST_BLOCKS, blocks - done)) for done in range(0, blocks, _MOST_BLOCKS)
    ]  # fmt: skip
    if len(runs) > _MOST_POINTERS:
        raise BuildError(f"{blocks} blocks are more than one table leads to", "see zipl.py")
    return b"".join(runs).ljust(SECTOR, b"\0")


def _pointer(block: int, count: int) -> bytes:
    return struct.pack(">QHH4x", block, SECTOR, count - 1)
