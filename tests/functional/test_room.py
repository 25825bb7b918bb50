"""The rooms that the tests themselves run in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.footprint import Footprint

pytestmark = pytest.mark.root

ROOM = REPOSITORY / "tools" / "room"
MESS = """
mkdir /run/left; mount -t tmpfs left /mnt; ip link add left type bridge; sleep 1000 &
for place in $(find /sys/fs/cgroup -maxdepth 1 -mindepth 1 -type d) /sys/fs/cgroup; do
    [ ! -e $place/cgroup.procs ] || mkdir $place/left
done
echo $!; exit 7
"""


def in_room(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOM, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_what_is_left_in_it_goes_with_it_and_the_exit_code_is_the_commands() -> None:
    before = Footprint.take()
    done = in_room(MESS)
    assert (done.returncode, done.stderr) == (7, "")
    assert 1 < int(done.stdout) < 1000  # it has numbers of its own
    assert Footprint.take().added_since(before) == []


def test_nothing_of_the_machine_is_seen_in_it() -> None:
    ours = Path(f"/run/kata-py-test-{os.getpid()}")
    ours.mkdir()
    try:
        shown = in_room(
            "ls /run; ls /sys/class/net; cut -d: -f3 /proc/self/cgroup; cat /proc/1/cmdline | tr '\\0' ' '"
        ).stdout
    finally:
        ours.rmdir()
    assert ours.name not in shown
    lines = shown.splitlines()
    assert "lo" in lines
    assert "eth0" not in lines
    assert {line for line in lines if line.startswith("/") and " " not in line} <= {"/", "/init"}
    assert "room --inside" in lines[-1]


@pytest.mark.parametrize(("flags", "weights"), [([], ("1024\n", "100\n")), (["--gently"], ("51\n", "5\n"))])
def test_a_gentle_one_weighs_a_twentieth_of_another(flags: list[str], weights: tuple[str, str]) -> None:
    with subprocess.Popen(
        [ROOM, *flags, "sh", "-c", "echo up; read x; exit 7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as room:
        assert room.stdout is not None
        assert room.stdout.readline() == "up\n"
        here, name = Path("/sys/fs/cgroup"), f"kata-py-room-{room.pid}"
        found = [*here.glob(f"cpu*/{name}/cpu.shares"), *here.glob(f"{name}/cpu.weight")]
        assert found
        assert all(weight.read_text() in weights for weight in found)
        room.communicate("\n", timeout=30)
        assert room.returncode == 7


def test_an_orphan_is_taken_in_and_no_zombie_stays() -> None:
    script = (
        "sh -c 'sleep 0.1 & exit'; while ps ax -o comm | grep -q sleep; do sleep 0.05; done; ps ax -o stat | grep -c Z"
    )
    assert in_room(script).stdout == "0\n"
