"""Whatever is killed at whatever step of a pod's life: `delete` leaves nothing, and nor does `kata-ctl gc` alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.root

TIMEOUT = 600  # seconds, on a busy machine


@pytest.mark.timeout(TIMEOUT)
def test_a_kill_at_any_step_on_record_leaves_nothing_after_delete_and_nothing_after_gc() -> None:
    # In a process of its own, which is forked for each life: no threads, and a node's mounts and network.
    done = subprocess.run(
        [sys.executable, "-m", "tools.crash_points"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4000:]
    for step in ("make the note of SOCKET", "begin the record", "intend kill-process agent", "remove record.json"):
        assert f"| `{step}` |" in done.stdout
