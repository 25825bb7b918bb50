from __future__ import annotations

from pathlib import Path

import pytest

from image.elf import Elf, is_elf


def test_a_program_names_the_libraries_it_needs() -> None:
    assert "libc.so.6" in Elf(Path("/bin/ls").read_bytes()).needed()


def test_a_static_program_needs_none() -> None:
    assert list(Elf(Path("/bin/busybox").read_bytes()).needed()) == []


def test_a_section_is_found_by_name_and_a_missing_one_is_empty() -> None:
    program = Elf(Path("/bin/ls").read_bytes())
    assert program.section(".interp").startswith(b"/lib")
    assert program.section(".modinfo") == b""


def test_the_other_byte_order_is_read_too() -> None:
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x02"
    assert list(Elf(bytes(header)).needed()) == []


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01" + bytes(60)])
def test_what_is_no_elf_file_of_64_bits_is_refused(data: bytes) -> None:
    assert not is_elf(data)
    with pytest.raises(ValueError, match="64-bit ELF"):
        Elf(data)
