"""What is made of crun's faults; its real work is in the functional tests. Here crun is a script."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kata_agent.container import crun as module
from kata_agent.container.crun import Crun, CrunError
from kata_agent.container.reaper import Reaper

Scripted = Callable[[str], Crun]


@pytest.fixture
def scripted(reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A driver whose crun runs the lines; in $log is where it should log, in $calls what it was called with."""

    def make(lines: str) -> Crun:
        program = tmp_path / "bin" / "crun"
        program.parent.mkdir()
        find_log = 'for word; do case $word in --log=*) log=${word#--log=};; esac; done; echo "$*" >>"$calls"\n'
        program.write_text(f"#!/bin/sh\n{find_log}{lines}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("calls", str(tmp_path / "calls"))
        return Crun(reaper, tmp_path / "work")

    return make


async def test_its_own_words_become_the_error_in_common_quotes(scripted: Scripted, tmp_path: Path) -> None:
    crun = scripted("printf 'first `thing`\\nsecond\\n' >$log; exit 1")

    with pytest.raises(CrunError, match=r'^first "thing"; second$'):
        await crun.start("ctr")

    assert list((tmp_path / "work").iterdir()) == []


async def test_one_that_fails_in_silence_is_told_by_its_status(scripted: Scripted) -> None:
    with pytest.raises(CrunError, match="crun start ended with status 3"):
        await scripted("exit 3").start("ctr")


async def test_one_that_hangs_is_killed_and_what_it_made_deleted(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.2)
    crun = scripted("case $* in *create*) echo stuck >$log; exec sleep 1000;; esac")

    with pytest.raises(CrunError, match=r"crun create: crun was killed after 0\.2 s; crun said: stuck"):
        await crun.create("ctr", tmp_path, terminal=False, no_pivot=True)

    create, delete = (tmp_path / "calls").read_text().splitlines()
    assert "--no-pivot" in create
    assert delete.endswith("delete --force ctr")


async def test_one_that_leaves_no_process_behind_is_at_fault(scripted: Scripted) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(CrunError, match="crun exec left no process behind"):
        await scripted("exit 0").exec("ctr", {"args": ["true"]}, terminal=False)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_one_that_sends_no_terminal_is_at_fault(scripted: Scripted) -> None:
    with pytest.raises(CrunError, match="crun sent no terminal"):
        await scripted("exit 0").exec("ctr", {"args": ["true"]}, terminal=True)


async def test_without_crun_the_error_names_it(reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CrunError, match=r"crun start: .*No such file or directory: 'crun'"):
        await Crun(reaper, tmp_path / "work").start("ctr")
