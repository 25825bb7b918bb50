"""Every module's own tests run every line of it, so that none is held up by another's alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kata_py import ttrpc

PACKAGE = Path(ttrpc.__file__).parent
ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "tests" / "unit" / "ttrpc"
MODULES = ["address", "client", "connection", "context", "envelope", "frames", "inbox", "link", "server", "session"]


@pytest.mark.parametrize("module", MODULES)
def test_a_modules_own_tests_leave_no_line_of_it_out(module):
    options = ["-q", "-x", "-p", "tests.functional.ttrpc.line_coverage", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS / f"test_{module}.py")]
    environment = os.environ | {"LINE_COVERAGE": str(PACKAGE / f"{module}.py")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "left out:"
