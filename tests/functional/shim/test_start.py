"""The real launcher, called as managers call it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from kata_protos.introspection_pb2 import RuntimeInfo
from kata_protos.task_v2_pb2 import ConnectRequest, PidsRequest, ShutdownRequest
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.ttrpc.address import parse
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from tests.functional.shim.conftest import (
    CONTAINERD,
    CRIO,
    MakeShim,
    Manager,
    Shim,
    daemons_of,
    wait_for_end,
)

pytestmark = pytest.mark.root

ANSWER_TIMEOUT = 10.0  # seconds; the daemon imports much before its first answer


@asynccontextmanager
async def task_of(address: str) -> AsyncIterator[TaskClient]:
    async with connect(parse(address), timeout=5) as client:
        yield TaskClient(client)


async def connected_pid(address: str) -> int:
    async with task_of(address) as task:
        return int((await task.Connect(ConnectRequest(), timeout=ANSWER_TIMEOUT)).shim_pid)


@pytest.mark.parametrize(
    ("manager", "hashed"),
    [(CONTAINERD, "/run/containerd/containerd.sock/k8s.io/{id}"), (CRIO, "default/{id}")],
    ids=["containerd", "CRI-O"],
)
async def test_start_prints_the_address_of_a_shim_that_answers(
    manager: Manager, hashed: str, make_shim: MakeShim
) -> None:
    shim = make_shim(manager)
    address = shim.start()
    assert address == f"unix:///run/containerd/s/{sha256(hashed.format(id=shim.id).encode()).hexdigest()}"
    assert (shim.bundle / "address").read_text() == address
    assert sorted(path.name for path in shim.bundle.iterdir()) == ["address", "config.json", "shim.pid"]
    assert stat.S_IMODE(shim.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(shim.socket.parent.stat().st_mode) == 0o700
    assert await connected_pid(address) == shim.pid


async def test_the_daemon_has_a_session_mounts_and_descriptors_of_its_own(shim: Shim) -> None:
    read, write = os.pipe()
    address = shim.start(pass_fds=(write,))  # a manager that forgot to close something
    await connected_pid(address)
    process = Path(f"/proc/{shim.pid}")
    assert os.getsid(shim.pid) == shim.pid
    assert (process / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    assert (process / "comm").read_text() == "containerd-shim\n"
    assert (process / "cwd").readlink() == Path("/")
    assert int((process / "oom_score_adj").read_text()) == int(Path("/proc/self/oom_score_adj").read_text()) + 1
    assert [(process / "fd" / fd).readlink() for fd in "012"] == [Path("/dev/null")] * 3
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""  # nobody else holds the write end
    os.close(read)


async def test_mounts_of_the_daemon_stay_its_own(shim: Shim, tmp_path: Path) -> None:
    await connected_pid(shim.start())
    inside = ["nsenter", "-t", str(shim.pid), "-m", "--"]
    await asyncio.to_thread(subprocess.run, [*inside, "mount", "-t", "tmpfs", "none", tmp_path], check=True)
    mounted = f" {tmp_path} "
    mounts = Path(f"/proc/{shim.pid}/mountinfo").read_text().splitlines()
    assert mounted in "".join(mounts)
    assert all(" shared:" in line for line in mounts)
    assert mounted not in Path("/proc/self/mountinfo").read_text()


def test_start_does_not_wait_for_its_stdin(shim: Shim) -> None:
    read, write = os.pipe()
    assert shim.start(stdin=read).startswith("unix://")
    os.close(read)
    os.close(write)


def test_bootstrap_parameters_on_stdin_are_no_error(shim: Shim) -> None:
    assert shim.start(stdin=None, input=b"\x0a\x03abc" * 1000).startswith("unix://")


def test_start_and_its_outputs_end_while_the_daemon_lives(shim: Shim) -> None:
    shim.start()
    os.kill(shim.pid, 0)


async def test_a_second_start_finds_the_living_shim(shim: Shim) -> None:
    address = shim.start()
    pid = shim.pid
    assert shim.start() == address
    assert shim.pid == pid
    assert daemons_of(shim.id) == [pid]
    assert await connected_pid(address) == pid


async def test_a_dead_shims_socket_is_replaced(shim: Shim) -> None:
    address = shim.start()
    shim.kill()
    assert shim.socket.exists()
    assert shim.start() == address
    assert await connected_pid(address) == shim.pid


def test_two_starts_at_once_leave_one_shim(shim: Shim) -> None:
    results: list[subprocess.CompletedProcess[bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(shim.run("start"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [done for done in results if done.returncode == 0]
    assert good
    assert {done.stdout for done in good} == {f"unix://{shim.socket}".encode()}
    assert {b"right now" in done.stderr for done in results if done.returncode} <= {True}
    assert daemons_of(shim.id) == [shim.pid]


POD = {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": ""}


def test_a_pods_container_gets_its_sandboxs_shim(make_shim: MakeShim) -> None:
    sandbox = make_shim(annotations={"io.kubernetes.cri-o.ContainerType": "sandbox"})
    address = sandbox.start()
    container = make_shim(annotations=POD | {"io.kubernetes.cri-o.SandboxID": sandbox.id})
    assert container.start() == address
    assert (container.bundle / "address").read_text() == address
    assert not (container.bundle / "shim.pid").exists()
    assert not container.socket.exists()
    assert daemons_of(container.id) == []


def failure(shim: Shim) -> str:
    before = sorted(path.name for path in shim.bundle.iterdir())
    done = shim.run("start")
    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("containerd-shim-kata-v2 start: ")
    assert sorted(path.name for path in shim.bundle.iterdir()) == before
    assert not shim.socket.exists()
    assert daemons_of(shim.id) == []
    return line


def test_a_pods_container_without_a_sandbox_is_refused(make_shim: MakeShim) -> None:
    container = make_shim(annotations=POD | {"io.kubernetes.cri-o.SandboxID": "gone"})
    assert f"sandbox gone of container {container.id} has no live shim" in failure(container)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "config.json is missing"), (b'{"annotations"', "config.json:1:15: not JSON: Expecting")],
)
def test_a_bundle_without_a_proper_spec_is_refused(content: bytes | None, said: str, shim: Shim) -> None:
    (shim.bundle / "config.json").unlink()
    if content is not None:
        (shim.bundle / "config.json").write_bytes(content)
    assert said in failure(shim)


@pytest.mark.parametrize(
    ("id", "said"), [("a/b", "id 'a/b' is not valid"), ("x" * 77, "id of 77 characters"), ("", "no id")]
)
def test_a_bad_id_is_refused(id: str, said: str, shim: Shim) -> None:
    shim.more = ["-id", id]
    assert said in failure(shim)


def test_a_socket_path_too_long_is_refused(shim: Shim) -> None:
    shim.more = ["-socket", "/run/containerd/s/" + "x" * 89]
    assert "socket path of 107 bytes, at most 106 fit" in failure(shim)


def test_a_user_other_than_root_is_refused(shim: Shim) -> None:
    # In a user namespace without a mapping nobody is root, and root's files can still be read.
    done = subprocess.run(
        ["unshare", "--user", *shim.words("start")], cwd=shim.bundle, capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"start: not root" in done.stderr


def test_a_failure_after_the_daemon_started_ends_it(shim: Shim) -> None:
    (shim.bundle / "address").mkdir()  # cannot be renamed over
    assert "address" in failure(shim)


def test_a_launcher_without_an_action_or_a_socket_says_what_it_is(shim: Shim) -> None:
    done = subprocess.run([shim.launcher], capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"is started by containerd or CRI-O" in done.stderr


@pytest.mark.parametrize("flag", ["-v", "-version", "--version"])
def test_the_version_is_told(flag: str, shim: Shim) -> None:
    done = subprocess.run([shim.launcher, flag], capture_output=True, timeout=20, check=True)
    assert re.fullmatch(rb"containerd-shim-kata-v2 \(io.containerd.kata.v2\): version \S+\n", done.stdout)


def test_info_is_containerds_message(shim: Shim) -> None:
    done = subprocess.run(
        [shim.launcher, "-info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True
    )
    info = RuntimeInfo.FromString(done.stdout)
    assert info.name == "io.containerd.kata.v2"
    assert info.version.version
    assert info.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    assert "rro" in json.loads(info.features.value)["mountOptions"]


def test_crio_is_told_the_features_that_containerd_is_told(shim: Shim) -> None:
    said, info = (
        subprocess.run([shim.launcher, word], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True)
        for word in ("features", "-info")
    )
    assert said.stdout == RuntimeInfo.FromString(info.stdout).features.value


async def test_both_versions_of_the_task_api_are_served(shim: Shim) -> None:
    async with connect(parse(shim.start()), timeout=5) as client:
        for version in ("v2", "v3"):
            with pytest.raises(StatusError, match="NOT_FOUND"):
                await client.call(
                    f"containerd.task.{version}.Task",
                    "Pids",
                    PidsRequest(id="none").SerializeToString(),
                    timeout=ANSWER_TIMEOUT,
                )


async def test_shutdown_leaves_nothing(shim: Shim) -> None:
    async with task_of(shim.start()) as task:
        await task.Shutdown(ShutdownRequest(id=shim.id), timeout=ANSWER_TIMEOUT)
    assert not shim.socket.exists()
    assert not (shim.bundle / "address").exists()
    wait_for_end(shim.pid)


async def test_a_shim_without_tasks_heeds_sigterm(shim: Shim) -> None:
    await connected_pid(shim.start())
    shim.kill(signal.SIGTERM)
    wait_for_end(shim.pid)
    assert not shim.socket.exists()


async def test_a_shim_with_tasks_ignores_sigterm(make_shim: MakeShim) -> None:
    shim = make_shim(occupied=True)
    address = shim.start()
    await connected_pid(address)
    shim.kill(signal.SIGTERM)
    assert await connected_pid(address) == shim.pid


@pytest.mark.parametrize("debug", [True, False])
async def test_the_log_fifo_gets_lines_in_logrus_form(debug: bool, shim: Shim) -> None:
    os.mkfifo(shim.bundle / "log", 0o700)
    log = os.open(shim.bundle / "log", os.O_RDONLY | os.O_NONBLOCK)
    shim.more = ["-debug"] if debug else []
    await connected_pid(shim.start())
    lines = os.read(log, 1 << 16).decode().splitlines()
    os.close(log)
    form = (
        r'time="\S+Z" level=info msg="serving at /run/containerd/s/[0-9a-f]{64}" name=containerd-shim-v2 '
        rf"pid={shim.pid} sandbox={shim.id} source=containerd-kata-shim-v2 subsystem=shim"
    )
    assert [line for line in lines if re.fullmatch(form, line)]
    assert any("level=debug" in line for line in lines) == debug


async def test_a_node_without_core_scheduling_is_no_reason_to_fail(shim: Shim) -> None:
    environment = shim.manager.environment | {"SCHED_CORE": "1"}
    shim.manager = dataclasses.replace(shim.manager, environment=environment)
    assert await connected_pid(shim.start()) == shim.pid
