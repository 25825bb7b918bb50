"""A real containerd drives the shim: what `ctr` shows with runc, it shows with us."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_protos.task_v2_pb2 import KillRequest, WaitRequest
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.ttrpc import address
from kata_py.ttrpc.client import connect
from tests.integration.conftest import ON_QEMU
from tests.leftovers import left_behind
from tests.tasks import until
from tools.containerd import PrivateContainerd
from tools.footprint import Footprint

pytestmark = pytest.mark.containerd

# ctr resizes after the start, as it does with runc: until then stty knows no size.
SIZED = 'tty; until [ "$(stty size 2>/dev/null)" ]; do :; done; stty size'


@pytest.fixture(scope="module")
def containerd(launcher: Path, config: Path, short_tmp: Path, driver: str) -> Iterator[PrivateContainerd]:
    """A private containerd; after the module the machine is as before."""
    before = Footprint.take()
    with PrivateContainerd(short_tmp / f"cd-{driver}", launcher, config) as containerd:
        yield containerd
    assert left_behind(before) == []


@pytest.fixture(scope="module")
def pod(containerd: PrivateContainerd) -> Iterator[str]:
    """A container that sleeps, to exec into."""
    containerd.run("pod", "sleep", "100000", options=["--detach"])
    yield "pod"
    containerd.ctr("tasks", "kill", "--signal", "SIGKILL", "pod")
    containerd.until_stopped("pod")
    containerd.ctr("tasks", "delete", "pod")
    containerd.ctr("containers", "delete", "pod")


@contextlib.contextmanager
def detached(containerd: PrivateContainerd, name: str, *argv: str) -> Iterator[str]:
    containerd.run(name, *argv, options=["--detach"])
    try:
        yield name
    finally:
        containerd.ctr("tasks", "delete", "--force", name, check=False)
        containerd.ctr("containers", "delete", name)


def execute(
    containerd: PrivateContainerd, pod: str, exec_id: str, *argv: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return containerd.ctr(*containerd.exec_arguments(pod, exec_id, *argv), check=False, stdin=stdin)


def test_an_attached_run_prints_and_returns_the_exit_code(containerd: PrivateContainerd) -> None:
    result = containerd.run("run-1", "sh", "-c", "echo out; echo err >&2; exit 5", options=["--rm"], check=False)
    assert (result.returncode, result.stdout) == (5, b"out\n")
    assert b"err\n" in result.stderr
    assert "run-1" not in containerd.containers()


@ON_QEMU
def test_the_kernel_is_the_guests(containerd: PrivateContainerd, pod: str) -> None:
    release = execute(containerd, pod, "kernel", "uname", "-r").stdout.decode().strip()
    assert release
    assert release != platform.release()


def test_exec_returns_output_and_exit_code(containerd: PrivateContainerd, pod: str) -> None:
    result = execute(containerd, pod, "e1", "sh", "-c", "echo inside; exit 42")
    assert (result.returncode, result.stdout) == (42, b"inside\n")


def test_exec_passes_stdin_to_its_end(containerd: PrivateContainerd, pod: str) -> None:
    data = os.urandom(1 << 20)
    result = execute(containerd, pod, "e2", "sha256sum", stdin=data)
    assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_exec_on_a_terminal_sees_one(containerd: PrivateContainerd, pod: str) -> None:
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", "40", "columns", "100"], stdin=slave, check=True)
    command = containerd.command(*containerd.exec_arguments(pod, "e3", "sh", "-c", SIZED, options=["-t"]))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    output = b""
    with os.fdopen(master, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        while chunk := terminal.read(4096):
            output += chunk
    assert process.wait(30) == 0
    assert b"/dev/pts/" in output
    assert b"40 100" in output


def test_an_unknown_command_is_named(containerd: PrivateContainerd, pod: str) -> None:
    result = execute(containerd, pod, "e4", "no-such-command")
    assert result.returncode != 0
    assert b"no-such-command" in result.stderr


def test_a_failed_run_names_the_command_and_leaves_no_task(containerd: PrivateContainerd) -> None:
    before = Footprint.take()
    result = containerd.run("bad", "no-such-command", check=False)
    assert result.returncode != 0
    assert b"no-such-command" in result.stderr
    containerd.ctr("containers", "delete", "bad", check=False)
    assert left_behind(before) == []


def test_metrics_prints_numbers(containerd: PrivateContainerd, pod: str) -> None:
    output = containerd.ctr("tasks", "metrics", pod).stdout.decode()
    rows = dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
    numbers = [value for name, value in rows.items() if "memory" in name]
    assert any(int(value) > 0 for value in numbers if value.isdigit())


def test_a_task_is_listed_running_then_stopped(containerd: PrivateContainerd) -> None:
    with detached(containerd, "listed", "sleep", "1000") as name:
        assert b"RUNNING" in containerd.ctr("tasks", "list").stdout
        containerd.ctr("tasks", "kill", "--signal", "SIGKILL", name)
        containerd.until_stopped(name)
        assert b"exit code 137" in containerd.ctr("tasks", "delete", name).stderr


def test_a_restarted_containerd_finds_its_container_and_sees_the_exit(containerd: PrivateContainerd) -> None:
    with detached(containerd, "survivor", "sh", "-c", "sleep 1000; exit 0") as name:
        containerd.stop(signal.SIGKILL)
        containerd.start()
        listed = containerd.ctr("tasks", "list").stdout
        assert b"survivor" in listed
        assert b"RUNNING" in listed
        assert execute(containerd, name, "after", "echo", "still here").stdout == b"still here\n"
        containerd.ctr("tasks", "kill", "--signal", "SIGKILL", name)
        containerd.until_stopped(name)
        assert b"exit code 137" in containerd.ctr("tasks", "delete", name).stderr


async def test_an_exec_ends_while_containerd_is_away_and_nothing_of_it_is_lost(
    containerd: PrivateContainerd, pod: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    script = "trap 'echo meanwhile; exit 3' USR1; echo before; while :; do sleep 0.1; done"
    logged = ["--detach", "--exec-id", "patient", "--log-uri", f"file://{log}"]
    containerd.ctr("tasks", "exec", *logged, pod, "sh", "-c", script)
    containerd.stop(signal.SIGKILL)
    async with connect(address.parse((containerd.bundle(pod) / "address").read_text()), timeout=10) as client:
        shim = TaskClient(client)
        await until(lambda: log.exists() and log.read_text() == "before\n")
        await shim.Kill(KillRequest(id=pod, exec_id="patient", signal=signal.SIGUSR1), timeout=10)
        await shim.Wait(WaitRequest(id=pod, exec_id="patient"), timeout=10)
    containerd.start()
    assert containerd.ctr("tasks", "delete", "--exec-id", "patient", pod, check=False).returncode == 3
    assert log.read_text() == "before\nmeanwhile\n"


def test_a_wrong_configuration_is_told_to_the_user_whole(containerd: PrivateContainerd, tmp_path: Path) -> None:
    before = Footprint.take()
    config = tmp_path / "configuration.toml"
    config.write_text(containerd.runtime_config.read_text().replace("default_memory", "default_memroy"))
    result = containerd.run("bad", "true", options=["--runtime-config-path", str(config)], check=False)
    assert result.returncode != 0
    said = rf"{config}:\d+: unknown key default_memroy in .*; the nearest valid key is default_memory"
    assert re.search(said.encode(), result.stderr)
    containerd.ctr("containers", "delete", "bad")
    assert left_behind(before) == []


def test_a_killed_machine_ends_the_task(containerd: PrivateContainerd) -> None:
    before = Footprint.take()
    with detached(containerd, "dying", "sleep", "1000") as name:
        pid = int(
            next(
                line.split()[1]
                for line in containerd.ctr("tasks", "list").stdout.decode().splitlines()
                if line.startswith(name)
            )
        )
        os.kill(pid, signal.SIGKILL)
        containerd.until_stopped(name)
        assert b"exit code 255" in containerd.ctr("tasks", "delete", name).stderr
    assert left_behind(before) == []


def test_an_unknown_image_is_containerds_own_error(containerd: PrivateContainerd) -> None:
    result = containerd.ctr("run", "--runtime", "io.containerd.kata.v2", "no/such:image", "x", check=False)
    assert b"no/such:image" in result.stderr
