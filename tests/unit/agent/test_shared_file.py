from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kata_agent import shared_file
from kata_agent.errors import AgentError, InvalidArgument
from kata_protos.agent_pb2 import CopyFileRequest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The share, with a neighbour that nothing may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


def _copy(root: Path, name: str, data: bytes = b"", **fields: int) -> None:
    values = {"file_size": len(data), "file_mode": stat.S_IFREG | 0o640, "dir_mode": 0o750, "uid": -1, "gid": -1}
    request = CopyFileRequest(path=f"{root}/{name}", data=data, **(values | fields))
    shared_file.copy(request, str(root))


def _contents(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_file_arrives_with_its_parents_mode_and_owner(root: Path) -> None:
    _copy(root, "a/b/file", b"hello", file_mode=stat.S_IFREG | 0o4711, dir_mode=0o1751, uid=1234, gid=5678)

    found = (root / "a/b/file").stat()
    parent, grandparent = (root / "a/b").stat(), (root / "a").stat()
    assert (root / "a/b/file").read_bytes() == b"hello"
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4711, 1234, 5678)
    assert (stat.S_IMODE(parent.st_mode), parent.st_uid, parent.st_gid) == (0o751, 1234, 5678)
    assert (stat.S_IMODE(grandparent.st_mode), grandparent.st_uid) == (0o751, os.getuid())


def test_a_file_of_pieces_is_there_only_when_it_is_whole(root: Path) -> None:
    (root / "file").write_text("old")

    _copy(root, "file", b"abc", file_size=6)
    assert (root / "file").read_text() == "old"
    _copy(root, "file", b"def", file_size=6, offset=3)

    assert (root / "file").read_text() == "abcdef"
    assert _contents(root) == ["file"]


def test_files_that_differ_in_their_endings_do_not_meet(root: Path) -> None:
    _copy(root, "a.x", b"xx", file_size=4)
    _copy(root, "a.y", b"yy", file_size=4)
    _copy(root, "a.x", b"XX", file_size=4, offset=2)
    _copy(root, "a.y", b"YY", file_size=4, offset=2)

    assert ((root / "a.x").read_text(), (root / "a.y").read_text()) == ("xxXX", "yyYY")


def test_a_piece_may_come_twice_and_a_file_begin_anew(root: Path) -> None:
    _copy(root, "file", b"a piece that was given up", file_size=100)
    _copy(root, "file", b"ab", file_size=5)
    _copy(root, "file", b"cd", file_size=5, offset=2)
    _copy(root, "file", b"cd", file_size=5, offset=2)
    _copy(root, "file", b"e", file_size=5, offset=4)

    assert (root / "file").read_text() == "abcde"


def test_more_bytes_than_were_announced_are_refused_and_nothing_stays(root: Path) -> None:
    _copy(root, "file", b"abc", file_size=4)

    with pytest.raises(AgentError, match="5 bytes were sent of a file of 4"):
        _copy(root, "file", b"de", file_size=4, offset=3)

    assert _contents(root) == []


def test_a_piece_that_leaves_a_hole_is_refused(root: Path) -> None:
    with pytest.raises(AgentError, match="the piece at 3 does not follow the 0 bytes before"):
        _copy(root, "file", b"def", file_size=6, offset=3)

    assert not (root / "file").exists()


def test_an_empty_file_and_one_with_the_longest_name_are_files(root: Path) -> None:
    _copy(root, "n" * 255)

    assert (root / ("n" * 255)).read_bytes() == b""


def test_a_directory_is_made_kept_and_put_in_the_place_of_a_file(root: Path) -> None:
    (root / "was-file").touch()
    (root / "kept").mkdir()
    (root / "kept/inside").touch()

    for name in ("was-file", "kept", "new/deep"):
        _copy(root, name, file_mode=stat.S_IFDIR | 0o2755, uid=1, gid=2)
        found = (root / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o2755, 1, 2)

    assert (root / "kept/inside").exists()


def test_a_link_has_the_target_that_was_sent_and_replaces_what_was_there(root: Path) -> None:
    (root / "..data").symlink_to("old")
    (root / "tree/deep").mkdir(parents=True)

    for name in ("..data", "tree", "new"):
        _copy(root, name, b"..2026_target", file_mode=stat.S_IFLNK | 0o777, uid=7, gid=8)
        found = (root / name).lstat()
        assert (root / name).readlink() == Path("..2026_target")
        assert (found.st_uid, found.st_gid) == (7, 8)


def test_a_file_replaces_a_directory_and_a_link_itself(root: Path) -> None:
    (root / "tree/deep").mkdir(parents=True)
    (root / "link").symlink_to("../outside")

    for name in ("tree", "link"):
        _copy(root, name, b"data")
        assert stat.S_ISREG((root / name).lstat().st_mode)


@pytest.mark.parametrize("target", ["../outside", "{top}/outside", "../../../../../..{top}/outside"])
def test_no_link_leads_out(root: Path, target: str) -> None:
    (root / "link").symlink_to(target.format(top=root.parent))

    for kind in (stat.S_IFREG, stat.S_IFDIR):
        with pytest.raises(OSError, match=r"link"):
            _copy(root, "link/file", b"x", file_size=1, file_mode=kind | 0o644)

    assert _contents(root.parent / "outside") == []


def test_a_link_within_the_share_is_followed(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("/real")

    _copy(root, "link/file", b"x")

    assert (root / "real/file").read_bytes() == b"x"


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}", "{root}/", "{root}/../outside/x", "{root}-not/x", "x", ""])
def test_a_path_that_is_not_below_the_share_is_refused(root: Path, path: str) -> None:
    with pytest.raises(AgentError, match="is not below"):
        shared_file.copy(CopyFileRequest(path=path.format(root=root)), str(root))


@pytest.mark.parametrize("fields", [{"offset": -1}, {"file_size": -2}, {"file_mode": stat.S_IFIFO | 0o600}])
def test_what_is_no_piece_of_a_file_is_invalid(root: Path, fields: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        _copy(root, "file", **fields)


def test_a_file_of_the_size_that_says_so_is_removed_with_all_that_is_below(root: Path) -> None:
    (root.parent / "outside" / "file").touch()
    (root / "link").symlink_to("../outside")
    for name in ("a/b/file", "a/other"):
        _copy(root, name, b"x")
    for name in ("a/b", "link", "nothing/here", "link/file"):
        _copy(root, name, file_size=shared_file.REMOVED)
    assert _contents(root) == ["a", "a/other"]
    assert (root.parent / "outside" / "file").exists()
    with pytest.raises(InvalidArgument, match="not a piece of a file"):
        _copy(root, "a", file_size=-2)
