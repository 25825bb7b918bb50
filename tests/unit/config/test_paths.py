"""Which files of the host a pod may name, and what does not get it to others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kata_py.config.paths import PathError, listed_file, real_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with programs that pods may name, in `bin`, and files that they may not, in `etc`."""
    for name in ("bin/qemu-a", "bin/qemu-b", "bin/sub/qemu-c", "etc/shadow", "bin/q[x]"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def refused(path: object, *globs: object) -> str:
    with pytest.raises(PathError) as caught:
        listed_file(str(path), map(str, globs))
    return str(caught.value)


def test_a_listed_file_is_taken(root: Path) -> None:
    assert listed_file(f"{root}/bin/qemu-a", [f"{root}/bin/qemu-a"]) == root / "bin/qemu-a"
    assert listed_file(f"{root}/bin/qemu-b", ["/nowhere", f"{root}/bin/qemu-?"]) == root / "bin/qemu-b"
    assert listed_file(f"{root}/bin/qemu-b", [f"{root}/*/qemu-[ab]"]) == root / "bin/qemu-b"


def test_a_file_that_is_not_listed_is_refused(root: Path) -> None:
    assert refused(root / "etc/shadow", root / "bin/*") == "is not listed"
    assert refused(root / "bin/qemu-a") == "is not listed"
    assert refused(root / "bin/qemu-a", "") == "is not listed"


def test_a_wildcard_does_not_cross_into_another_directory(root: Path) -> None:
    for glob in ("bin/*", "bin/**", "b*", "bin/qemu*", "*"):
        assert refused(root / "bin/sub/qemu-c", root / glob) == "is not listed"


@pytest.mark.parametrize(
    "way", ["bin/../etc/shadow", "bin/qemu-a/../../etc/shadow", "./etc/shadow", "etc//shadow", "etc/shadow/", "bin/."]
)
def test_a_path_is_not_taken_a_roundabout_way(root: Path, way: str) -> None:
    for glob in (root / "*/*", root / "*/*/*/*/*", f"{root}/{way}", root / "etc/shadow"):
        assert refused(f"{root}/{way}", glob) == "is not an absolute path in its shortest form"


@pytest.mark.parametrize("path", ["", "etc/shadow", "~/x", "//etc/passwd", "file:///etc/passwd"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    assert refused(path, path, "*", "/*/*") == "is not an absolute path in its shortest form"


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\u202e", "\udc80"])
def test_a_path_with_a_character_that_does_not_print_is_refused(root: Path, character: str) -> None:
    assert "characters that no path of this kind needs" in refused(f"{root}/bin/qemu-a{character}", f"{root}/bin/*")


def test_a_line_s_end_behind_a_listed_name_does_not_make_it_that_name(root: Path) -> None:
    (root / "bin/qemu-a\n").touch()
    assert "characters that no path of this kind needs" in refused(f"{root}/bin/qemu-a\n", f"{root}/bin/qemu-a")


def test_a_link_out_of_a_listed_directory_is_refused(root: Path) -> None:
    (root / "bin/qemu-link").symlink_to("../etc/shadow")
    (root / "bin/directory").symlink_to(root / "etc")
    assert refused(root / "bin/qemu-link", root / "bin/*") == f"leads to {root}/etc/shadow, which is not listed"
    assert (
        refused(root / "bin/directory/shadow", root / "bin/*/*") == f"leads to {root}/etc/shadow, which is not listed"
    )


def test_a_link_within_what_is_listed_is_the_file_it_leads_to(root: Path) -> None:
    (root / "bin/qemu-link").symlink_to("qemu-a")
    assert listed_file(f"{root}/bin/qemu-link", [f"{root}/bin/*"]) == root / "bin/qemu-a"


def test_a_link_that_is_listed_by_its_own_name_is_the_host_s_and_followed(root: Path) -> None:
    (root / "bin/qemu-link").symlink_to("../etc/shadow")
    assert listed_file(f"{root}/bin/qemu-link", [f"{root}/bin/qemu-link"]) == root / "etc/shadow"
    (root / "opt").symlink_to("bin")
    assert listed_file(f"{root}/opt/qemu-a", [f"{root}/opt/qemu-*"]) == root / "bin/qemu-a"


def test_wildcards_in_a_path_are_characters_like_others(root: Path) -> None:
    assert "No such file" in refused(root / "bin/qemu-*", root / "bin/*")
    assert listed_file(f"{root}/bin/q[x]", [f"{root}/bin/q*"]) == root / "bin/q[x]"
    (root / "o[x]").mkdir()
    (root / "o[x]/file").touch()
    (root / "link").symlink_to("o[x]")
    assert listed_file(f"{root}/link/file", [f"{root}/link/*"]) == root / "o[x]/file"


def test_what_is_missing_or_a_directory_or_goes_in_circles_is_refused(root: Path) -> None:
    (root / "bin/circle").symlink_to("circle")
    assert refused(root / "bin/missing", root / "bin/*") == "cannot be used: No such file or directory"
    assert refused(root / "bin/sub", root / "bin/*") == "is neither a file nor a device"
    assert "cannot be used" in refused(root / "bin/circle", root / "bin/*")
    assert "cannot be used" in refused(root / f"bin/{'x' * 300}", root / "bin/*")
    os.mkfifo(root / "bin/fifo")
    assert refused(root / "bin/fifo", root / "bin/*") == "is neither a file nor a device"


def test_devices_are_files() -> None:
    assert real_file("/dev/urandom") == Path("/dev/urandom")
