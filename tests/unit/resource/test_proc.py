from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kata_py.resource import proc
from kata_py.resource.proc import Resident


def test_what_is_a_processes_own_is_told_from_what_it_shares(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    lines = ("Name:\tRssAnon: 1 kB", "RssAnon:\t 2 kB", "RssFile:\t 3 kB", "RssShmem:\t 4 kB", "HugetlbPages:\t 5 kB")
    (tmp_path / "7/status").write_text("\n".join(lines))
    assert proc.resident(7, tmp_path) == Resident(own=5 << 10, shared=9 << 10)
    assert proc.resident(8, tmp_path) is None


def test_of_a_program_that_forks_and_waits_the_child_does_the_work() -> None:
    waits = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    with subprocess.Popen(waits, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert proc.worker(parent.pid) == child
        assert proc.worker(child) == child
        os.killpg(parent.pid, 9)
    assert proc.worker(parent.pid) == parent.pid
