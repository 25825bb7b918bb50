from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.storage.errors import StorageError, UnsupportedMount
from kata_py.storage.rootfs import RootfsMount

pytestmark = pytest.mark.root


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "rootfs"
    path.mkdir()
    yield path
    mount.detach(str(path))


def layers(tmp_path: Path, names: list[str]) -> list[str]:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"from-{Path(name).name}").touch()
    return [str(tmp_path / name) for name in names]


def test_an_overlay_shows_all_its_layers_and_writes_to_the_upper_one(tmp_path: Path, target: Path) -> None:
    low, high, upper, work = layers(tmp_path, ["low", "high", "upper", "work"])
    (tmp_path / "work/from-work").unlink()
    RootfsMount("overlay", "overlay", (f"workdir={work}", f"upperdir={upper}", f"lowerdir={high}:{low}")).perform(
        target
    )
    assert {path.name for path in target.iterdir()} == {"from-low", "from-high", "from-upper"}
    (target / "new").touch()
    assert (tmp_path / "upper/new").exists()


def test_an_overlay_of_more_layers_than_a_page_can_name_is_mounted(tmp_path: Path, target: Path) -> None:
    lowers = layers(tmp_path, [f"snapshots-of-a-manager/{number}/fs" for number in range(60)])
    option = "lowerdir=" + ":".join(lowers)
    assert len(option) > 4096
    RootfsMount("overlay", "overlay", (option,)).perform(target)
    assert [path.name for path in target.iterdir()] == ["from-fs"]


def test_a_bind_with_ro_is_read_only(tmp_path: Path, target: Path) -> None:
    (source,) = layers(tmp_path, ["source"])
    RootfsMount("bind", source, ("rbind", "ro")).perform(target)
    assert (target / "from-source").exists()
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()


def test_a_bind_with_rw_is_writable(tmp_path: Path, target: Path) -> None:
    (source,) = layers(tmp_path, ["source"])
    RootfsMount("bind", source, ("rbind", "rw")).perform(target)
    (target / "new").touch()
    assert (tmp_path / "source/new").exists()


def test_options_of_the_file_system_reach_it(target: Path) -> None:
    RootfsMount("tmpfs", "tmpfs", ("size=4096", "mode=0711", "nodev")).perform(target)
    assert target.stat().st_mode & 0o777 == 0o711


def test_what_the_kernel_refuses_is_an_error_that_names_source_target_and_options(target: Path) -> None:
    with pytest.raises(StorageError, match=rf"cannot mount overlay overlay on {target}: .*lowerdir=/nowhere"):
        RootfsMount("overlay", "overlay", ("lowerdir=/nowhere",)).perform(target)


@pytest.mark.parametrize(
    "unsupported",
    [
        RootfsMount("fuse.nydus-overlayfs", "overlay", ()),
        RootfsMount("overlay", "overlay", ("io.katacontainers.volume=e30=",)),
    ],
)
def test_what_only_a_runtime_understands_is_no_mount(target: Path, unsupported: RootfsMount) -> None:
    with pytest.raises(UnsupportedMount, match="type image_guest_pull is supported"):
        unsupported.perform(target)
