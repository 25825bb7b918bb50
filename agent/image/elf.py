"""What we read of ELF files, of any architecture: the libraries a program needs, and a kernel module's own words.

Source: elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SHT_DYNAMIC = 6
_DT_NULL, _DT_NEEDED = 0, 1


class _Section(NamedTuple):
    name: int
    kind: int
    offset: int
    size: int
    link: int


class Elf:
    """A 64-bit ELF file.

    Args:
        data: Its bytes.

    Raises:
        ValueError: They are none.
    """

    def __init__(self, data: bytes) -> None:
        if not is_elf(data):
            raise ValueError("not a 64-bit ELF file")
        self._data = data
        self._order = "<" if data[5] == 1 else ">"
        offset, size, count, names = self._unpack("Q10xHHH", 0x28)
        rows = (self._unpack("II16xQQI", offset + index * size) for index in range(count))
        self._sections = [_Section(*row) for row in rows]
        self._names = self._content(self._sections[names]) if self._sections else b""

    def needed(self) -> Iterator[str]:
        """File names of the libraries that the dynamic linker is to load."""
        for section in self._sections:
            if section.kind != _SHT_DYNAMIC:
                continue
            strings = self._content(self._sections[section.link])
            for position in range(section.offset, section.offset + section.size, 16):
                tag, value = self._unpack("QQ", position)
                if tag == _DT_NULL:
                    break
                if tag == _DT_NEEDED:
                    yield _string(strings, value)

    def section(self, name: str) -> bytes:
        """A section's bytes; empty if there is none of that name."""
        for section in self._sections:
            if _string(self._names, section.name) == name:
                return self._content(section)
        return b""

    def _content(self, section: _Section) -> bytes:
        return self._data[section.offset : section.offset + section.size]

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, offset)


def is_elf(data: bytes) -> bool:
    """Whether it is a 64-bit ELF file."""
    return data[:5] == b"\x7fELF\x02"


def _string(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()
