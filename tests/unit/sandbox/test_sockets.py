"""Where sandboxes' sockets are looked for."""

from __future__ import annotations

from pathlib import Path

from kata_py.sandbox.sockets import ROOTS, SOCKET, serving


def test_sandboxes_with_a_socket_are_found_below_each_root_and_the_first_one_counts(tmp_path: Path) -> None:
    for sandbox in ("go/bb", "go/aa", "rs/aa", "rs/cc"):
        (tmp_path / sandbox).mkdir(parents=True)
        (tmp_path / sandbox / SOCKET).touch()
    (tmp_path / "go" / "unserved").mkdir()
    (tmp_path / "go" / "file").touch()
    roots = (tmp_path / "absent", tmp_path / "go", tmp_path / "rs")
    assert serving(roots) == {
        "aa": tmp_path / "go/aa" / SOCKET,
        "bb": tmp_path / "go/bb" / SOCKET,
        "cc": tmp_path / "rs/cc" / SOCKET,
    }


def test_they_are_where_upstreams_shims_have_them() -> None:
    assert [str(root / "id" / SOCKET) for root in ROOTS] == [
        "/run/vc/sbs/id/shim-monitor.sock", "/run/kata/id/shim-monitor.sock"
    ]  # fmt: skip
