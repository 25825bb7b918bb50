from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from image.tree import Directory, File, Link, Tree, matches, read_package


@pytest.fixture
def tree() -> Tree:
    tree = Tree()
    tree.add("usr/lib/x/libc.so.6", File(b"\x7fELF", executable=True))
    tree.add("usr/lib/x/libz.so.1", Link("libz.so.1.2"))
    tree.add("usr/lib/x/libz.so.1.2", File(b"z"))
    tree.add("usr/lib64/ld.so", Link("/lib/x/libc.so.6"))
    tree.add("tmp", Directory(0o1777))
    return tree


def test_parents_come_into_being_and_precede_what_they_hold(tree: Tree) -> None:
    paths = [path for path, _ in tree.items()]
    assert paths[:4] == ["tmp", "usr", "usr/lib", "usr/lib/x"]
    assert all(path.rpartition("/")[0] in ["", *paths[:index]] for index, path in enumerate(paths))


def test_a_directory_added_later_keeps_what_it_holds(tree: Tree) -> None:
    tree.add("usr/lib", Directory(0o700))
    assert tree.nodes["usr/lib/x/libz.so.1.2"] == File(b"z")
    assert tree.nodes["usr/lib"] == Directory(0o700)


def test_removing_a_directory_takes_what_it_holds_and_not_its_namesakes(tree: Tree) -> None:
    tree.remove("usr/lib")
    assert sorted(tree.nodes) == ["tmp", "usr", "usr/lib64", "usr/lib64/ld.so"]


def test_a_trail_follows_links_relative_and_absolute_into_the_merged_usr(tree: Tree) -> None:
    assert [path for path, _ in tree.trail("usr/lib/x/libz.so.1")] == ["usr/lib/x/libz.so.1", "usr/lib/x/libz.so.1.2"]
    assert [path for path, _ in tree.trail("usr/lib64/ld.so")] == ["usr/lib64/ld.so", "usr/lib/x/libc.so.6"]
    assert list(tree.trail("usr/lib/x/none")) == []


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("usr/bin/crun", "usr/bin/crun", True),
        ("usr/lib/x/libz.so.1", "usr/lib/x/*.so*", True),
        ("usr/lib/x/deep/libz.so.1", "usr/lib/x/*.so*", False),
        ("usr/lib/python3.11/a/b.py", "usr/lib/python3.11/**", True),
        ("usr/lib/python3.11", "usr/lib/python3.11/**", False),
        ("usr/lib/python3.111/a", "usr/lib/python3.11/**", False),
    ],
)
def test_a_star_stays_within_a_name_and_two_go_below(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, pattern) is expected


def test_a_written_tree_has_the_permissions_named_whatever_the_umask(tree: Tree, tmp_path: Path) -> None:
    tree.write(tmp_path / "root")
    root = tmp_path / "root"
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "usr/lib/x/libc.so.6").stat().st_mode & 0o7777 == 0o755
    assert (root / "usr/lib/x/libz.so.1").read_bytes() == b"z"
    assert (root / "usr/lib/x/libz.so.1").lstat().st_mode & 0o7777 == 0o777
    assert (root / "usr/lib/x/libz.so.1.2").stat().st_mode & 0o7777 == 0o644


def test_cpio_unpacks_what_the_archive_holds(tree: Tree, tmp_path: Path) -> None:
    subprocess.run(["cpio", "-idm", "--quiet"], input=tree.cpio(), cwd=tmp_path, check=True)
    assert (tmp_path / "usr/lib/x/libz.so.1").read_bytes() == b"z"
    assert (tmp_path / "usr/lib/x/libc.so.6").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "usr/lib/x/libc.so.6").stat().st_mtime == 0


def test_the_archive_does_not_depend_on_the_order_of_adding(tree: Tree) -> None:
    other = Tree(dict(reversed(tree.nodes.items())))
    assert other.cpio() == tree.cpio()


def test_a_package_gives_the_files_asked_for_moved_into_usr(tmp_path: Path) -> None:
    content = tmp_path / "content"
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n"
    )
    (content / "bin").mkdir()
    (content / "bin/tool").write_bytes(b"tool")
    (content / "bin/tool").chmod(0o755)
    (content / "bin/alias").symlink_to("tool")
    (content / "bin/other").write_bytes(b"other")
    package = tmp_path / "p.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", content, package], check=True, capture_output=True)
    tree = read_package(package, ["usr/bin/tool", "usr/bin/alias"])
    assert dict(tree.items()) == {
        "usr": Directory(),
        "usr/bin": Directory(),
        "usr/bin/alias": Link("tool"),
        "usr/bin/tool": File(b"tool", executable=True),
    }
