"""Commands that run side by side, and what is printed of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tools.lanes import run

LANES = [sys.executable, "-m", "tools.lanes"]


async def test_they_run_at_once_and_are_printed_in_order(tmp_path: Path) -> None:
    """Each waits for the other, so neither would end if they ran in turn."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said: list[bytes] = []
    first, second = f"sh -c 'read x < {pipe}; echo first; exit 3'", f"sh -c 'echo second; echo > {pipe}'"
    assert await run([first, second], said.append) == [3, 0]
    assert b"".join(said).decode() == f"==> {first}\nfirst\n==> {second}\nsecond\n"


def test_one_that_fails_fails_them_all() -> None:
    assert subprocess.run([*LANES, "true", "false", "true"], cwd=REPOSITORY, check=False).returncode == 1
    assert subprocess.run([*LANES, "true", "true"], cwd=REPOSITORY, check=False).returncode == 0


def test_an_interrupt_waits_for_their_clean_up() -> None:
    script = "trap 'echo cleaned; exit 130' INT; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*LANES, f'sh -c "{script}"'], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as lanes:
        assert lanes.stdout is not None
        assert [lanes.stdout.readline() for _ in range(2)][-1] == "up\n"
        os.killpg(lanes.pid, signal.SIGINT)
        assert lanes.stdout.read() == "cleaned\n"
        assert lanes.wait(10) == 1
