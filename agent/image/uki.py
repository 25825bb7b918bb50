"""A unified kernel image: kernel, initramfs and parameters in one program for UEFI.

systemd's stub starts the kernel that it finds in itself. Sections of the file begin at sectors, so who knows where the
file lies can read kernel and initramfs out of it without knowing its form.
Source: the UAPI group's "Unified Kernel Image" specification; Microsoft's "PE Format"; systemd-stub(7).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from image.errors import BuildError
from image.gpt import aligned

_HINT = "another version of systemd-boot-efi? see uki.py"
_SECTION = 40  # bytes of a section's header
_SECTIONS_OFFSET = 24  # from the PE signature to the optional header
_READABLE_DATA = 0x40000040
_FILE_ALIGNMENT = 512


class Extent(NamedTuple):
    """Where a section's content lies in the file, in bytes."""

    offset: int
    size: int


def unified(stub: bytes, sections: Sequence[tuple[str, bytes]]) -> tuple[bytes, dict[str, Extent]]:
    """The stub with more sections; returns it, and where their contents are.

    Args:
        stub: systemd's, of the machine that boots it.
        sections: Names, at most eight characters, and contents.

    Raises:
        BuildError: It is no such program, or has no room for them.
    """
    if stub[:2] != b"MZ":
        raise BuildError("the stub is no program for UEFI", _HINT)
    signature: int = struct.unpack_from("<I", stub, 0x3C)[0]
    count, options_size = struct.unpack_from("<H12xH", stub, signature + 6)
    options = signature + _SECTIONS_OFFSET
    if stub[signature : signature + 4] != b"PE\0\0" or stub[options : options + 2] != b"\x0b\x02":
        raise BuildError("the stub is no 64-bit program for UEFI", _HINT)
    alignment, file_alignment = struct.unpack_from("<II", stub, options + 32)
    headers: int = struct.unpack_from("<I", stub, options + 60)[0]
    table = options + options_size
    free = table + count * _SECTION
    if file_alignment != _FILE_ALIGNMENT or free + len(sections) * _SECTION > headers:
        raise BuildError("the stub has no room for more sections", _HINT)
    ends = (struct.unpack_from("<II", stub, table + number * _SECTION + 8) for number in range(count))
    memory = aligned(max(size + address for size, address in ends), alignment)
    image = bytearray(stub)
    extents: dict[str, Extent] = {}
    for number, (name, content) in enumerate(sections):
        image += bytes(aligned(len(image), _FILE_ALIGNMENT) - len(image))
        size = aligned(len(content), _FILE_ALIGNMENT)
        extents[name] = Extent(len(image), len(content))
        head = (name.encode(), len(content), memory, size, len(image), 0, 0, 0, 0, _READABLE_DATA)
        struct.pack_into("<8sIIIIIIHHI", image, free + number * _SECTION, *head)
        image += content + bytes(size - len(content))
        memory = aligned(memory + len(content), alignment)
    struct.pack_into("<H", image, signature + 6, count + len(sections))
    struct.pack_into("<I", image, options + 56, memory)  # of all, once loaded
    struct.pack_into("<I", image, options + 64, 0)  # no checksum, which only drivers need
    return bytes(image), extents
