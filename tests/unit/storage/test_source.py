from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.resource.mntns import MountNamespace
from kata_py.storage.source import Kind, Source, block_device, examine

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "place"
    path.mkdir()
    yield path
    mount.detach_below(str(path))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device of 1 MiB."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    device = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    yield Path(device)
    subprocess.run(["losetup", "--detach", device], check=True)


def test_files_directories_and_what_is_missing_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o640)
    assert examine(tmp_path / "file") == Source(tmp_path / "file", Kind.FILE, mode=0o640)
    assert examine(tmp_path).kind is Kind.DIRECTORY
    assert examine(tmp_path / "nowhere").kind is Kind.MISSING


def test_sockets_fifos_and_character_devices_are_other(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    kinds = {examine(path).kind for path in (tmp_path / "fifo", tmp_path / "socket", Path("/dev/null"))}
    assert kinds == {Kind.OTHER}


def test_memory_tells_its_size_mode_and_group(place: Path) -> None:
    mount.mount("tmpfs", str(place), "tmpfs", 0, "size=1048576,mode=2777,gid=7")
    assert examine(place) == Source(place, Kind.DIRECTORY, "tmpfs", 1 << 20, os.sysconf("SC_PAGE_SIZE"), 7, 0o2777)


def test_a_directory_on_memory_is_not_memory_itself(place: Path) -> None:
    mount.mount("tmpfs", str(place), "tmpfs")
    (place / "below").mkdir()
    assert (examine(place / "below").fstype, examine(place).fstype) == ("", "tmpfs")


def test_a_disk_is_known_by_its_path_and_by_its_number(loop: Path) -> None:
    assert examine(loop) == Source(loop, Kind.BLOCK_DEVICE, read_only=True)
    number = loop.stat().st_rdev
    assert block_device(os.major(number), os.minor(number)) == loop
    assert block_device(4095, 0) is None


def test_a_mounted_file_system_is_examined_where_it_is_mounted(home: Path, node: MountNamespace) -> None:
    assert node.run(examine, home / "merged").fstype == "tmpfs"
    assert node.run(examine, home / "merged" / "greeting").kind is Kind.FILE
    assert examine(home / "merged" / "greeting").kind is Kind.MISSING
