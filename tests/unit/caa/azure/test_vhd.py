from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from kata_caa.providers.azure import vhd

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
MIB = 1 << 20


def test_a_disk_is_rounded_up_to_whole_mib() -> None:
    assert [vhd.rounded(size) for size in (1, MIB, MIB + 1)] == [MIB, MIB, 2 * MIB]


def test_the_footer_has_the_size_of_a_sector_and_its_checksum() -> None:
    footer = vhd.footer(30 * MIB, ID)
    assert len(footer) == 512
    assert footer[:8] == b"conectix"
    assert int.from_bytes(footer[48:56]) == 30 * MIB
    assert footer[60:64] == b"\0\0\0\2"
    assert footer[68:84] == ID.bytes
    rest = footer[:64] + bytes(4) + footer[68:]
    assert int.from_bytes(footer[64:68]) == ~sum(rest) & 0xFFFFFFFF


@pytest.mark.parametrize("size", [3 * MIB, 300 * MIB, 2048 * MIB, 30 << 30])
def test_the_geometry_is_that_of_qemu_img(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk.vhd"
    options = ["-f", "vpc", "-o", "subformat=fixed,force_size=off"]  # which rounds up to the geometry
    subprocess.run(["qemu-img", "create", "-q", *options, path, str(size)], check=True)
    with path.open("rb") as file:
        file.seek(-512, 2)
        theirs = file.read()
    whole = path.stat().st_size - 512
    assert whole >= size
    assert vhd.footer(whole, ID)[40:64] == theirs[40:64]  # sizes, geometry and type


def test_qemu_img_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(bytes(5 * MIB) + vhd.footer(5 * MIB, ID))
    line = ["qemu-img", "info", "--output=json", "-f", "vpc", path]
    told = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)
    assert told["format"] == "vpc"
    assert told["virtual-size"] == 5 * MIB
