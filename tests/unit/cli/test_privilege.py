"""What kata-ctl says to a user who may not look at sandboxes: that, and never that there are none."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kata_py.sandbox.record import Record
from kata_py.sandbox.sockets import SOCKET

pytestmark = pytest.mark.root

NOBODY = 65534
SCRIPT = """
import sys
from pathlib import Path
from kata_py.sandbox import failure, record, shims, sockets
top = Path(sys.argv[1])
record.ROOT, failure.ROOT, shims.ROOT, sockets.ROOTS = top / "sbs", top / "failures", str(top / "shims"), (top / "sbs",)
from kata_py.cli import command
sys.exit(command.main(sys.argv[2:]))
"""


@pytest.fixture
def top(short_tmp: Path) -> Path:
    """The place of a sandbox on record, which has a socket, in a directory that is its owner's alone."""
    top = Path(tempfile.mkdtemp(dir=short_tmp))  # pytest's own directories are closed to others
    short_tmp.chmod(0o755)
    top.chmod(0o755)
    record = Record.create("aa11", namespace="k8s.io", bundle="/no/bundle", root=top / "sbs")
    (record.directory / SOCKET).touch()
    return top


def nobody_runs(top: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(top), *words], env=os.environ | environment, cwd="/",
        user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    ["ps", "ps -o json", "explain aa11", "timeline aa11", "gc", "gc --dry-run", "metrics aa11", "exec aa11", "doctor"],
)
def test_without_root_a_verb_fails_and_says_to_run_it_as_root(top: Path, words: str) -> None:
    ran = nobody_runs(top, *words.split())
    assert (ran.returncode, ran.stdout) == (1, "")
    first, second = ran.stderr.splitlines()
    assert first.startswith(f"kata-ctl: {top}/sbs/aa11")
    assert first.endswith(": Permission denied")
    assert second == "kata-ctl: next: run it as root"


@pytest.mark.parametrize("words", ["ps", "explain aa11", "timeline aa11", "gc", "metrics aa11"])
def test_nor_does_a_verb_guess_where_the_directory_of_all_sandboxes_is_closed(top: Path, words: str) -> None:
    (top / "sbs").chmod(0o700)
    ran = nobody_runs(top, *words.split())
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"kata-ctl: {top}/sbs: Permission denied\nkata-ctl: next: run it as root\n"


def test_failures_that_are_kept_are_not_said_to_be_none(top: Path) -> None:
    (top / "sbs/aa11" / SOCKET).unlink()
    (top / "sbs/aa11/record.json").unlink()
    (top / "sbs/aa11").rmdir()
    (top / "failures").mkdir(mode=0o700)
    ran = nobody_runs(top, "explain", "aa11")
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (1, f"kata-ctl: {top}/failures: Permission denied")


def test_a_shell_completes_nothing_and_shows_no_error(top: Path) -> None:
    words = {"_KATA_CTL_COMPLETE": "bash_complete", "COMP_WORDS": "kata-ctl metrics a", "COMP_CWORD": "2"}
    ran = nobody_runs(top, **words)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\n", "")
