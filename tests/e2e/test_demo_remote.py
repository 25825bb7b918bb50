"""What a newcomer to peer pods runs first."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.qemu, pytest.mark.containerd, pytest.mark.timeout(300)]

DEMO = [sys.executable, "-m", "tools.demo_remote"]


def kernel(output: str, whose: str) -> list[str]:
    """Release and machine on the demo's line `host kernel …` or `guest kernel …`."""
    return next(line for line in output.splitlines() if f"{whose} kernel" in line).split()[-2:]


def test_the_demo_shows_a_pod_in_a_machine_of_libvirt_and_leaves_nothing() -> None:
    demo = subprocess.run(DEMO, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert kernel(demo.stdout, "host") == [platform.release(), platform.machine()]
    release, machine = kernel(demo.stdout, "guest")
    assert (release != platform.release(), machine) == (True, platform.machine())
    assert demo.stdout.count("2 packets transmitted, 2 packets received") == 2
    assert " stdout F hello from the machine\n" in demo.stdout
    assert "still here" in demo.stdout
    assert "nothing is left behind" in demo.stdout


def test_containerd_runs_a_pod_in_a_machine_of_s390x_too() -> None:
    demo = subprocess.run([*DEMO, "s390x"], cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.count("2 packets transmitted, 2 packets received") == 2
    assert kernel(demo.stdout, "guest")[-1] == "s390x"
    assert "nothing is left behind" in demo.stdout


def test_an_interrupted_demo_of_peer_pods_leaves_nothing() -> None:
    with subprocess.Popen(DEMO, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if "a pod of the class kata-remote" in line:
                demo.send_signal(signal.SIGINT)
                break
        output += demo.stdout.read()
    assert demo.returncode == 130, output
    assert "nothing is left behind" in output
