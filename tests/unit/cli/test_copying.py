"""What `kata-ctl cp` takes from a guest, whatever that sends."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kata_py.cli import command
from kata_py.cli.copying import Place, place, unpack
from kata_py.cli.errors import CtlError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file", Path("file")),
        ("/a:b:/c", Path("/a:b:/c")),
        ("./a:/b", Path("./a:/b")),
        ("../a:/b", Path("../a:/b")),
        ("a/b/c:/d", Path("a/b/c:/d")),
        ("aa11:/etc", Place("aa11", "", "/etc")),
        ("aa11:app:/etc/../x/", Place("aa11", "app", "/x")),
        ("shop/web:app:/a:b", Place("shop/web", "app", "/a:b")),
        ("web:/a:b", Place("web", "", "/a:b")),
    ],
)
def test_what_is_in_a_sandbox_is_told_from_files_of_the_host(text: str, named: Place | Path) -> None:
    assert place(text) == named


def test_a_path_in_a_sandbox_is_absolute() -> None:
    for text in ("aa11:app:etc", "aa11:etc"):
        with pytest.raises(CtlError, match="is not absolute"):
            place(text)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["a", "b"], "neither side is in a sandbox"),
        (["a:c:/x", "b:c:/x"], "both sides are in sandboxes"),
        (["zz:c:/x", "."], "no running sandbox 'zz'"),
    ],
)
def test_a_copy_that_is_none_is_refused(words: list[str], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["cp", *words]) == 1
    assert cause in capsys.readouterr().err


def member(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, content: bytes = b"", to: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(content), to
    return info, content


def received(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "x") -> tuple[Path, list[str]]:
    """What becomes of an archive, and what was warned of."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    warned: list[str] = []
    target = tmp_path / "target"
    with tarfile.open(fileobj=buffer, mode="r|") as archive:
        assert unpack(archive, name, target, warned.append)
    return target, warned


def test_files_directories_and_links_come_with_their_modes(tmp_path: Path) -> None:
    target, warned = received(
        tmp_path,
        member("./x", tarfile.DIRTYPE, 0o500),
        member("x/file", mode=0o4751, content=b"a\0b"),
        member("x/link", tarfile.SYMTYPE, to="/etc/passwd"),
    )
    assert (target / "file").read_bytes() == b"a\0b"
    assert (target / "file").stat().st_mode & 0o7777 == 0o751, "a guest makes no programs of root's"
    assert (target / "link").readlink() == Path("/etc/passwd")
    assert target.stat().st_mode & 0o777 == 0o500
    assert warned == []


@pytest.mark.parametrize("name", ["y", "x/../../y", "../x", "x/a/../../../b", "/etc/passwd", ".", "xx/y"])
def test_a_name_that_leads_elsewhere_ends_the_copy(tmp_path: Path, name: str) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(CtlError, match="which is not below x"):
        received(tmp_path, member(name, content=b"1"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "target"]


def test_no_link_is_followed_neither_of_this_copy_nor_of_an_earlier_one(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises((CtlError, OSError)):
        received(
            tmp_path,
            member("x", tarfile.DIRTYPE, 0o755),
            member("x/out", tarfile.SYMTYPE, to=str(outside)),
            member("x/out/file", content=b"1"),
        )
    received(tmp_path, member("x", tarfile.DIRTYPE, 0o755), member("x/out", tarfile.SYMTYPE, to=str(outside)))
    for way in ("x/out/file", "x/out"):
        kind = tarfile.DIRTYPE if way == "x/out" else tarfile.REGTYPE
        with pytest.raises(CtlError, match="is no directory"):
            received(tmp_path, member(way, kind, content=b""))
    received(tmp_path, member("x/out", content=b"1"))  # a file in the link's place, not where it leads
    assert list(outside.iterdir()) == []
    assert (tmp_path / "target/out").read_bytes() == b"1"


def test_what_is_neither_file_directory_nor_link_is_left_out(tmp_path: Path) -> None:
    target, warned = received(
        tmp_path,
        member("x", tarfile.DIRTYPE, 0o755),
        *(
            member(f"x/{number}", kind)
            for number, kind in enumerate((tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE))
        ),
    )
    assert list(target.iterdir()) == []
    assert len(warned) == 3


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"old"), lambda path: path.symlink_to("/etc/passwd")])
def test_a_file_that_is_there_is_replaced_and_nothing_is_left_beside_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(tmp_path / "target")
    target, _ = received(tmp_path, member("x", content=b"new"))
    assert (target.is_symlink(), target.read_bytes()) == (False, b"new")
    assert list(tmp_path.iterdir()) == [target]
