"""What a newcomer runs first."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.qemu, pytest.mark.containerd, pytest.mark.usefixtures("guest")]

DEMO = [sys.executable, "-m", "tools.demo"]


def kernel(output: str, whose: str) -> str:
    """The release on the demo's line `host kernel …` or `guest kernel …`."""
    return next(line for line in output.splitlines() if f"{whose} kernel" in line).split()[-1]


def test_the_demo_shows_a_guest_kernel_and_leaves_nothing() -> None:
    demo = subprocess.run(DEMO, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert kernel(demo.stdout, "host") == platform.release()
    assert kernel(demo.stdout, "guest") != platform.release()
    assert "hello from a configuration map" in demo.stdout
    assert "nothing is left behind" in demo.stdout


@pytest.mark.parametrize(
    "moment", ["start a private containerd", "$ ctr run", "guest kernel", "sleep 1000", "container visitor"]
)
def test_an_interrupted_demo_leaves_nothing(moment: str) -> None:
    with subprocess.Popen(DEMO, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if moment in line:
                demo.send_signal(signal.SIGINT)
                break
        output += demo.stdout.read()
    assert demo.returncode == 130, output
    assert "nothing is left behind" in output
