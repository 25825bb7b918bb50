from __future__ import annotations

from pathlib import Path

from kata_agent import dns


def test_without_lines_nothing_is_covered(tmp_path: Path) -> None:
    target = tmp_path / "resolv.conf"
    target.write_text("guest's own\n")

    dns.cover_resolv_conf([], tmp_path / "own", target)

    assert not (tmp_path / "own").exists()


def test_a_guest_without_the_file_keeps_none(tmp_path: Path) -> None:
    dns.cover_resolv_conf(["nameserver 192.0.2.1"], tmp_path / "own", tmp_path / "resolv.conf")

    assert list(tmp_path.iterdir()) == []
