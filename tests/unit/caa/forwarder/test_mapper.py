"""What the device mapper is asked for: the bytes of `dm-ioctl.h`, and what is left when the kernel refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from kata_caa.forwarder.mapper import KEY_LENGTH, Command, MapperError, draw, encrypt, request, table

DISK, SECTORS = Path("/dev/vda3"), 2048
CREATE, REMOVE, RESUME, LOAD = 0xC138FD03, 0xC138FD04, 0xC138FD06, 0xC138FD09  # as a C compiler makes them


class Kernel:
    """A mapper that makes the device 253:300 and refuses some requests."""

    def __init__(self, *refused: int) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self.held: list[bytearray] = []  # what the caller may still have
        self._refused = refused

    def ioctl(self, mapper: int, number: int, data: bytearray) -> int:
        self.asked.append((number, bytes(data)))
        self.held.append(data)
        if number in self._refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        struct.pack_into("=Q", data, 40, 253 << 8 | 300 & 0xFF | (300 & ~0xFF) << 12)
        return 0

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.asked]


def kernel_that_refuses(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> Kernel:
    kernel = Kernel(*numbers)
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    return kernel


def text(data: bytes, start: int, end: int) -> bytes:
    """A text of C."""
    return data[start:end].partition(b"\0")[0]


def test_a_requests_header_has_each_field_in_its_place() -> None:
    data = request("images", uuid="CRYPT-PLAIN-images", flags=0x8000, targets=1)
    assert struct.unpack_from("=3I", data) == (4, 0, 0)
    assert struct.unpack_from("=7I", data, 12) == (len(data), 312, 1, 0, 0x8000, 0, 0)
    assert struct.unpack_from("=Q", data, 40) == (0,)
    assert (text(data, 48, 176), text(data, 176, 305)) == (b"images", b"CRYPT-PLAIN-images")
    assert not any(data[305:])


def test_the_kernel_reads_and_writes_a_request_in_place() -> None:
    assert len(request("images")) > 1024, "of less fcntl.ioctl() makes a copy"


def test_the_table_is_one_range_that_is_encrypted_with_all_of_the_key() -> None:
    key = bytearray(range(200, 200 + 56)) + bytearray(range(8))
    data = table("images", DISK, SECTORS, key)
    assert struct.unpack_from("=2I", data, 20) == (1, 0)
    assert struct.unpack_from("=I", data, 28) == (1 << 15,), "the kernel wipes its copies"
    assert struct.unpack_from("=QQiI", data, 312) == (0, SECTORS, 0, 0)
    assert text(data, 336, 352) == b"crypt"
    assert text(data, 352, len(data)) == f"aes-xts-plain64 {key.hex()} 0 /dev/vda3 0".encode()


def test_each_key_is_another_one() -> None:
    keys = [bytearray(KEY_LENGTH) for _ in range(8)]
    for key in keys:
        draw(key)
    assert len({bytes(key) for key in keys}) == 8
    assert all(len(set(key)) > 16 for key in keys)


def test_a_device_is_made_and_loaded_and_begins_and_of_its_key_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_that_refuses(monkeypatch)
    assert encrypt("images", DISK, SECTORS, Path(os.devnull)) == Path("/dev/dm-300")
    assert kernel.numbers == [CREATE, LOAD, RESUME]
    (_, loaded), held = kernel.asked[1], kernel.held[1]
    assert len(text(loaded, 352, len(loaded)).split()[1]) == 2 * KEY_LENGTH
    assert not any(held)


@pytest.mark.parametrize(
    ("refused", "numbers"), [(LOAD, [CREATE, LOAD, REMOVE]), (RESUME, [CREATE, LOAD, RESUME, REMOVE])]
)
def test_a_device_that_does_not_begin_is_removed_again(
    monkeypatch: pytest.MonkeyPatch, refused: int, numbers: list[int]
) -> None:
    kernel = kernel_that_refuses(monkeypatch, refused, REMOVE)
    name = Command(refused & 0xFF).name
    with pytest.raises(MapperError, match=f"the device mapper refuses {name}: Invalid argument"):
        encrypt("images", DISK, SECTORS, Path(os.devnull))
    assert kernel.numbers == numbers
    assert not any(kernel.held[1])


def test_what_cannot_be_made_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_that_refuses(monkeypatch, CREATE)  # somebody else has that name
    with pytest.raises(MapperError, match="refuses CREATE"):
        encrypt("images", DISK, SECTORS, Path(os.devnull))
    assert kernel.numbers == [CREATE]


def test_a_kernel_without_a_mapper_is_told(tmp_path: Path) -> None:
    with pytest.raises(MapperError, match=r"no device mapper: .*/control: No such file"):
        encrypt("images", DISK, SECTORS, tmp_path / "control")


def test_somebody_who_is_no_mapper_refuses(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    with pytest.raises(MapperError, match="refuses CREATE: Inappropriate ioctl"):
        encrypt("images", DISK, SECTORS, tmp_path / "control")
