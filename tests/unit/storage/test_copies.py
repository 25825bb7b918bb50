"""Copies of volumes, against the agent's own half."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from kata_agent import shared_file
from kata_protos.agent_pb2 import CopyFileRequest
from kata_py.storage import copies
from kata_py.storage.copies import Copies
from kata_py.storage.errors import StorageError
from kata_py.storage.share import GUEST_ROOT, Volume


class Guest:
    """An agent's directory of shared files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent: list[CopyFileRequest] = []
        self._news = asyncio.Event()

    async def take(self, request: CopyFileRequest) -> None:
        self.sent.append(request)
        moved = CopyFileRequest()
        moved.CopyFrom(request)
        moved.path = request.path.replace(GUEST_ROOT, str(self.root))
        shared_file.copy(moved, str(self.root))
        self._news.set()

    def place(self, volume: Volume) -> Path:
        return self.root / volume.name

    async def until(self, path: Path, names: list[str]) -> None:
        async with asyncio.timeout(5):
            while listed(path) != names:
                self._news.clear()
                await self._news.wait()


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "guest")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def volume(source: Path) -> Volume:
    return Volume.for_container("c1", source, "/data")


async def test_a_tree_arrives_with_owners_modes_and_links_and_leaves_again(guest: Guest, source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True, mode=0o700)
    (source / "a" / "file").write_bytes(b"x" * (copies.PIECE + 1))
    os.chown(source / "a" / "file", 1000, 2000)
    (source / "a" / "file").chmod(0o4640)
    (source / "empty").touch()
    (source / "link").symlink_to("a/file")
    os.mkfifo(source / "fifo")
    async with Copies(guest.take).container("c1", None, [volume(source)]):
        place = guest.place(volume(source))
        assert listed(place) == ["a", "empty", "link"]
        assert (place / "link").read_bytes() == b"x" * (copies.PIECE + 1)
        found = (place / "a" / "file").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 2000, 0o4640)
        assert ((place / "a").stat().st_uid, (place / "a" / "b").stat().st_mode & 0o777) == (0, 0o700)
        assert max(len(request.data) for request in guest.sent) == copies.PIECE
    assert list(guest.root.iterdir()) == []


async def test_what_is_swapped_is_followed_with_its_deletions(guest: Guest, source: Path) -> None:
    def write(generation: str, **content: str) -> None:
        (source / generation).mkdir()
        for name, text in content.items():
            (source / generation / name).write_text(text)
            if not (source / name).is_symlink():
                (source / name).symlink_to(f"..data/{name}")
        (source / "..tmp").symlink_to(generation)
        (source / "..tmp").rename(source / "..data")

    write("..1", one="1", two="2")
    async with Copies(guest.take).container("c1", None, [volume(source)]):
        place = guest.place(volume(source))
        assert (place / "one").read_text() == "1"
        write("..2", one="new", three="3")
        (source / "two").unlink()
        shutil.rmtree(source / "..1")
        await guest.until(place, ["..2", "..data", "one", "three"])
        assert ((place / "one").read_text(), (place / "three").read_text()) == ("new", "3")
        swapped = [request.path.rpartition("/")[2] for request in guest.sent if request.data and b".." in request.data]
        assert swapped[-2:] == ["..data", "three"]  # nobody sees a link that leads nowhere


async def test_a_file_alone_is_copied(guest: Guest, source: Path) -> None:
    (source / "hosts").write_text("localhost")
    only = Volume.for_container("c1", source / "hosts", "/etc/hosts")
    async with Copies(guest.take).container("c1", None, [only]):
        assert guest.place(only).read_text() == "localhost"


async def test_what_is_too_large_for_a_guests_memory_is_refused_before_anything_is_sent(
    guest: Guest, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (source / "large").open("wb") as file:
        file.truncate(copies.SIZE_MAX + 1)
    with pytest.raises(StorageError, match=r"has 134217729 bytes, and at most 134217728 are copied .* shared_fs"):
        async with Copies(guest.take).container("c1", None, [volume(source)]):
            raise AssertionError("entered")
    (source / "large").unlink()
    monkeypatch.setattr(copies, "ENTRIES_MAX", 3)
    for number in range(4):
        (source / str(number)).touch()
    with pytest.raises(StorageError, match="more than 3 files"):
        async with Copies(guest.take).container("c1", None, [volume(source)]):
            raise AssertionError("entered")
    assert {request.file_size for request in guest.sent} == {copies.REMOVED}


async def test_what_is_missing_is_named(guest: Guest, source: Path) -> None:
    with pytest.raises(StorageError, match="cannot copy /no/such into the guest"):
        async with Copies(guest.take).container("c1", None, [volume(Path("/no/such"))]):
            raise AssertionError("entered")


async def test_a_root_file_system_is_not_copied(guest: Guest, source: Path) -> None:
    with pytest.raises(StorageError, match="cannot have its root file system"):
        async with Copies(guest.take).container("c1", source, []):
            raise AssertionError("entered")
