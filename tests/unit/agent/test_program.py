"""A program for another machine is told before it begins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kata_agent.container import program
from kata_py.oci.spec import Process

SELF = Path(sys.executable).resolve().read_bytes()[:64]
S390X = SELF[:5] + b"\x02" + SELF[6:18] + b"\x00\x16" + SELF[20:]  # big-endian, as it is
I386 = SELF[:18] + b"\x03\x00" + SELF[20:]


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the programs, in our own root, which is that of the process asked about."""
    for name, content in {
        "own": SELF,
        "s390x": S390X,
        "i386": I386,
        "script": b"#!/bin/sh\n",
        "short": b"\x7fELF",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "s390x")
    return tmp_path


def foreign(program_name: str, path: str = "", cwd: str = "/") -> str:
    env = [f"PATH={path}"] if path else []
    return program.foreign(os.getpid(), Process(args=[program_name], env=env, cwd=cwd))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("own", ""), ("s390x", "s390x"), ("link", "s390x"), ("script", ""), ("short", ""), ("none", "")],
)
def test_the_architecture_of_a_program_is_told_if_it_is_another(bin: Path, name: str, expected: str) -> None:
    assert foreign(str(bin / name)) == expected


def test_a_program_is_looked_for_where_the_container_does(bin: Path) -> None:
    assert foreign("s390x", path=f"/no/such::{bin}") == "s390x"
    assert foreign("./s390x", cwd=str(bin)) == "s390x"
    assert foreign("s390x") == ""


def test_what_the_kernel_may_run_besides_is_none_of_our_business(bin: Path) -> None:
    assert foreign(str(bin / "i386")) == ("" if os.uname().machine == "x86_64" else "i386")


def test_a_process_that_is_gone_has_no_program() -> None:
    with pytest.raises(FileNotFoundError):
        program.foreign(0, Process(args=["true"], cwd="/"))
