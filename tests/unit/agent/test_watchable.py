from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_agent import linux
from kata_agent.errors import InvalidArgument
from kata_agent.storage.watchable import ENTRIES_MAX, SIZE_MAX, Copy

pytestmark = pytest.mark.root


class ConfigMap:
    """A volume as the kubelet writes it: data in a directory with a time for a name, behind links."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = 0
        directory.mkdir()

    def write(self, **values: str) -> None:
        """A new version. Source: Kubernetes' `pkg/volume/util/atomic_writer.go`."""
        self._versions += 1
        new = self.directory / f"..2026_{self._versions}"
        new.mkdir()
        for name, value in values.items():
            (new / name).write_text(value)
        old = (self.directory / "..data").resolve() if self._versions > 1 else None
        (self.directory / "..data_tmp").symlink_to(new.name)
        (self.directory / "..data_tmp").replace(self.directory / "..data")
        for name in values:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        for path in self.directory.iterdir():
            if not path.name.startswith("..") and path.name not in values:
                path.unlink()
        if old is not None:
            shutil.rmtree(old)


@pytest.fixture
def source(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "watchable"
    yield top / "config"
    linux.detach(str(top / "config"))
    linux.detach(str(top))


def content(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith("..")}


def test_a_copy_follows_new_values_new_keys_and_those_that_are_gone(source: ConfigMap, target: Path) -> None:
    source.write(a="1", b="1")
    copy = Copy(source.directory, target)

    assert copy.begin()
    assert linux.is_mount_point(str(target.parent))
    assert content(target) == {"a": "1", "b": "1"}
    assert (target / "a").readlink() == Path("..data/a")

    source.write(a="2", c="2")
    copy.update()
    assert content(target) == {"a": "2", "c": "2"}
    assert sorted(path.name for path in target.iterdir()) == ["..2026_2", "..data", "a", "c"]

    copy.remove()
    assert list(target.parent.iterdir()) == []


def test_a_reader_never_finds_a_key_missing_or_two_versions_mixed(source: ConfigMap, target: Path) -> None:
    source.write(a="0", b="0")
    copy = Copy(source.directory, target)
    copy.begin()
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            version = os.open(target / "..data", os.O_PATH | os.O_DIRECTORY)
            try:
                there = Path(f"/proc/self/fd/{version}")
                seen = {(there / name).read_text() for name in ("a", "b")}
                if len(seen) != 1:
                    wrong.append(seen)
            except FileNotFoundError:
                pass  # of a version that has gone since it was opened
            finally:
                os.close(version)
            try:
                (target / "a").lstat()
            except FileNotFoundError as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 100):
        source.write(a=str(version), b=str(version))
        copy.update()
    done.set()
    reader.join()
    assert wrong == []
    assert content(target) == {"a": "99", "b": "99"}


def test_mode_and_owner_are_copied_and_their_changes_too(source: ConfigMap, target: Path) -> None:
    source.write(a="1")
    file = (source.directory / "a").resolve()
    file.chmod(0o640)
    os.chown(file, 1000, 2000)
    copy = Copy(source.directory, target)
    copy.begin()

    found = (target / "a").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 1000, 2000)
    file.chmod(0o600)
    copy.update()
    assert (target / "a").stat().st_mode & 0o7777 == 0o600


def test_nothing_is_written_when_nothing_has_changed(source: ConfigMap, target: Path) -> None:
    source.write(a="1")
    copy = Copy(source.directory, target)
    copy.begin()
    before = {path: path.lstat() for path in target.rglob("*")}

    copy.update()

    assert {path: path.lstat() for path in target.rglob("*")} == before


def test_a_file_alone_stays_the_file_that_containers_have_mounted(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "hosts"
    source.write_text("one")
    copy = Copy(source, target)
    copy.begin()
    inode = target.stat().st_ino

    source.write_text("three")
    copy.update()

    assert (target.read_text(), target.stat().st_ino) == ("three", inode)


def test_what_failed_is_made_up_for_later(source: ConfigMap, target: Path) -> None:
    source.write(a="1", b="1")
    copy = Copy(source.directory, target)
    copy.begin()
    hidden = source.directory.with_name("hidden")
    source.directory.rename(hidden)
    with pytest.raises(FileNotFoundError):
        copy.update()
    hidden.rename(source.directory)
    source.write(b="2")

    copy.update()

    assert content(target) == {"b": "2"}


def test_eight_keys_are_followed_and_more_are_mounted_as_they_are(source: ConfigMap, target: Path) -> None:
    source.write(**{f"k{number}": "1" for number in range(ENTRIES_MAX // 2)})
    followed = Copy(source.directory, target)
    assert followed.begin()
    followed.remove()
    source.write(**{f"k{number}": "1" for number in range(ENTRIES_MAX // 2 + 1)})

    assert not Copy(source.directory, target).begin()

    assert linux.is_mount_point(str(target))
    assert len(content(target)) == ENTRIES_MAX // 2 + 1


def test_a_large_file_is_mounted_as_it_is(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(SIZE_MAX + 1))

    assert not Copy(source, target).begin()

    assert target.stat().st_ino == source.stat().st_ino


def test_a_target_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is not below a directory watchable"):
        Copy(tmp_path, tmp_path / "somewhere" / "watchable")
