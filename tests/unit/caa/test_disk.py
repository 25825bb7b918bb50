from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kata_caa.disk import BLOCK, QCOW2, RAW, examine, read_block
from kata_caa.errors import DiskError


def sparse(path: Path, size: int, *parts: tuple[int, bytes]) -> bytes:
    """A file with holes; gives what it reads as."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
    return path.read_bytes()


def test_blocks_of_zeros_are_left_out_whether_they_are_holes_or_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    size = 8 * BLOCK + 1000
    whole = sparse(path, size, (0, b"MBR"), (2 * BLOCK, bytes(BLOCK)), (5 * BLOCK - 1, b"ab"), (size - 1, b"z"))
    told: list[tuple[int, int]] = []
    disk = examine(path, progress=lambda done, total: told.append((done, total)))
    assert disk.blocks == (0, 4, 5, 8)
    assert disk.digest == hashlib.sha256(whole).hexdigest()
    assert (disk.size, disk.form, disk.payload) == (size, RAW, 3 * BLOCK + 1000)
    assert told[-1] == (size, size)
    assert len(told) == 9


def test_the_last_block_is_filled_up_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * (BLOCK + 7))
    with path.open("rb") as file:
        assert read_block(file.fileno(), 1) == b"x" * 7 + bytes(BLOCK - 7)


def test_a_qcow2_is_told_by_its_magic(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"QFI\xfb" + bytes(100))
    disk = examine(path)
    assert disk.form == QCOW2
    assert disk.named("podvm") == f"podvm-{disk.digest[:12]}"


@pytest.mark.parametrize("content", [b"", bytes(BLOCK)], ids=["empty", "zeros"])
def test_a_disk_with_nothing_on_it_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(content)
    with pytest.raises(DiskError, match="nothing on the disk"):
        examine(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"missing\.raw"):
        examine(tmp_path / "missing.raw")


def test_an_unknown_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="'vax' is no machine"):
        examine(tmp_path / "disk.raw", "vax")


def test_reading_ends_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(3 * BLOCK))
    told: list[int] = []
    with pytest.raises(InterruptedError):
        examine(path, progress=lambda done, total: told.append(done), stop=lambda: len(told) == 2)
    assert told == [BLOCK, 2 * BLOCK]
