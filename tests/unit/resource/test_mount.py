from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory; whatever a test leaves mounted below it is detached."""
    yield tmp_path
    mount.detach_below(str(tmp_path))


def tmpfs(target: Path) -> Path:
    target.mkdir(exist_ok=True)
    mount.mount("tmpfs", str(target), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "size=64k")
    return target


def test_what_is_mounted_is_among_the_mount_points_until_it_is_detached(place: Path) -> None:
    target = str(tmpfs(place / "a"))
    assert target in mount.mount_points()
    mount.detach(target)
    assert target not in mount.mount_points()


@pytest.mark.parametrize(
    "name", ["with space", "with\ttab", "with\nnewline", "with\\backslash", "with\\040both", "not UTF-8 \udcff"]
)
def test_a_mount_point_is_read_as_it_is_named(place: Path, name: str) -> None:
    target = str(tmpfs(place / name))
    assert target in mount.mount_points()
    mount.detach_below(target)
    assert target not in mount.mount_points()


def test_a_bind_mount_shows_the_source_and_can_be_made_read_only(place: Path) -> None:
    (place / "source").mkdir()
    (place / "target").mkdir()
    mount.mount(str(place / "source"), str(place / "target"), flags=mount.MS_BIND)
    mount.mount("", str(place / "target"), flags=mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY)
    (place / "source" / "file").write_text("seen")
    assert (place / "target" / "file").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only"):
        (place / "target" / "other").touch()


def test_a_stack_of_mounts_is_detached_whole(place: Path) -> None:
    target = str(tmpfs(tmpfs(tmpfs(place / "a"))))
    mount.detach(target)
    assert target not in mount.mount_points()


@pytest.mark.parametrize("name", ["", "missing", "file/below"])
def test_detaching_where_nothing_is_mounted_is_success(place: Path, name: str) -> None:
    (place / "file").touch()
    mount.detach(str(place / name))


def test_everything_below_a_path_is_detached_and_its_namesake_left_alone(place: Path) -> None:
    inner = tmpfs(tmpfs(place / "a") / "b")
    neighbour = tmpfs(place / "ab")
    mount.detach_below(str(place / "a"))
    points = mount.mount_points()
    assert str(inner) not in points
    assert str(place / "a") not in points
    assert str(neighbour) in points


def test_a_failed_mount_names_the_path(place: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        mount.mount("tmpfs", str(place / "missing"), "tmpfs")
    assert failure.value.filename == str(place / "missing")


def test_an_open_file_knows_its_mount(place: Path) -> None:
    target = tmpfs(place / "a")
    ids = []
    for path in (place, target):
        descriptor = os.open(path, os.O_RDONLY)
        ids.append(mount.mount_id(descriptor))
        os.close(descriptor)
    assert ids[0] != ids[1]


def test_an_unknown_namespace_flag_is_an_error_of_the_kernel() -> None:
    with pytest.raises(OSError, match=r"unshare\(0x") as failure:
        mount.unshare(1)
    assert failure.value.errno == errno.EINVAL
