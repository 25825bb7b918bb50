"""Whatever is killed at whatever step of a pod's life: `delete` leaves nothing, and neither does `kata-ctl gc` alone.

`python -m tools.crash_points` prints the table.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.root

TIMEOUT = 600.0  # seconds, on a busy machine


@pytest.mark.timeout(TIMEOUT)
def test_a_kill_at_any_step_on_record_leaves_nothing_after_delete_and_nothing_after_gc() -> None:
    # In a process of its own: its threads would not outlive the forks, and it is the node that its lives end on.
    done = subprocess.run(
        [sys.executable, "-m", "tools.crash_points"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    table = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4000:]
    killed = {step: cells for step, program, *cells in ([cell.strip() for cell in row[1:-1].split("|")] for row in table)}
    for step in ("make the note of SOCKET", "begin the record", "intend kill-process agent", "remove record.json"):
        assert f"`{step}`" in killed
