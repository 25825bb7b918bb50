"""A guest of a hundred bytes: it says its lines on the first serial port, and then ends as it is told.

A machine that boots it is up in a fifth of a second, so that everything about a machine but its guest can be
tested with the real QEMU. Source: Multiboot specification 0.6.96, section 3.1; UART 16550; Intel SDM volume 2.
"""

from __future__ import annotations

import enum
import struct
from pathlib import Path

_BASE = 0x100000  # where the loader puts it
_CODE = 32  # the header's size, and where execution begins


class Ending(enum.Enum):
    """What the guest does after it has spoken."""

    IDLE = b"\xf4\xeb\xfd"  # hlt; jmp back
    POWER_OFF = (
        b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef\xf4\xeb\xfd"  # out 0x604, 0x2000: ACPI S5 as SeaBIOS sets it up
    )
    RESET = b"\x0f\x01\x18\xcc"  # lidt [eax], which points nowhere; int3: a triple fault


def write(path: Path, *lines: str, ending: Ending = Ending.IDLE) -> Path:
    """Write a guest that says these lines."""
    flags = 1 << 16  # the addresses in the header count
    magic = 0x1BADB002
    header = struct.pack(
        "<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, _BASE, _BASE, 0, 0, _BASE + _CODE
    )  # fmt: skip
    speech = b"\x66\xba\xf8\x03"  # mov dx, 0x3f8
    speech += b"\xac\x84\xc0\x74\x03\xee\xeb\xf8"  # again: lodsb; test al, al; jz on; out dx, al; jmp again
    code = speech + ending.value
    text = _BASE + _CODE + 5 + len(code)
    path.write_bytes(
        header + b"\xbe" + struct.pack("<I", text) + code + "".join(f"{s}\r\n" for s in lines).encode() + b"\0"
    )
    return path
