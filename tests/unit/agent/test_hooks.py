from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_agent.container import hooks
from kata_agent.container.hooks import GuestHooks
from kata_agent.container.reaper import Reaper


def _program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_hooks_are_programs_in_the_order_of_their_names_and_no_links(tmp_path: Path) -> None:
    two, one = (_program(tmp_path / "prestart" / name, "true") for name in ("2-two", "1-one"))
    (tmp_path / "prestart" / "3-link").symlink_to(one)
    (tmp_path / "prestart" / "4-text").write_text("no program")
    (tmp_path / "prestart" / "5-directory").mkdir()
    stop = _program(tmp_path / "poststop" / "stop", "true")

    assert GuestHooks.found(tmp_path) == GuestHooks((one, two), (), (stop,))


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert GuestHooks.found(tmp_path / "none") == GuestHooks()


async def test_a_hook_gets_the_state_its_kind_and_a_clean_environment(reaper: Reaper, tmp_path: Path) -> None:
    hook = _program(tmp_path / "hook", f'cat >{tmp_path}/state; echo "$0 $1" >{tmp_path}/words; env >{tmp_path}/env')

    await hooks.run(reaper, (hook,), "poststart", {"id": "ctr", "pid": 7})

    assert json.loads((tmp_path / "state").read_text()) == {"id": "ctr", "pid": 7}
    assert (tmp_path / "words").read_text().split()[1] == "poststart"
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "PWD", "_", "SHLVL"}


async def test_a_hook_that_fails_is_logged_and_stops_nothing(
    reaper: Reaper, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_TIMEOUT", 0.2)
    failing = _program(tmp_path / "1", "echo no luck; exit 3")
    hanging = _program(tmp_path / "2", "exec sleep 100")
    last = _program(tmp_path / "4", f"touch {tmp_path}/done")

    await hooks.run(reaper, (failing, hanging, tmp_path / "3-gone", last), "poststop", {})

    assert f"poststop hook {failing} ended with status 3: no luck" in caplog.text
    assert f"poststop hook {hanging}: 2 was killed after 0.2 s" in caplog.text
    assert "No such file or directory" in caplog.text
    assert (tmp_path / "done").exists()
