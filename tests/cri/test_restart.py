"""containerd goes and comes back while pods run: nothing of them is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kata_protos.task_v2_pb2 import WaitRequest
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.ttrpc import address
from kata_py.ttrpc.client import connect
from tests.cri import client, log
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import CREATED, EXITED, NOT_READY, READY, RUNNING, Pods
from tests.cri.proto import cri_pb2 as cri
from tools.cri import CriContainerd

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

ENDS = [pytest.param(signal.SIGTERM, id="stopped"), pytest.param(signal.SIGKILL, id="killed")]


class Restart:
    """Ends containerd in one way, and starts it again."""

    def __init__(self, containerd: CriContainerd, how: signal.Signals) -> None:
        self._containerd = containerd
        self._how = how

    def stop(self) -> None:
        self._containerd.stop(self._how)

    async def start(self) -> None:
        self._containerd.start()
        async with client.connected(self._containerd.address) as cri:
            await client.serving(cri)

    async def __call__(self) -> None:
        self.stop()
        await self.start()


@pytest.fixture(params=ENDS)
def restart(containerd: CriContainerd, request: pytest.FixtureRequest) -> Restart:
    """Restarts containerd, by request or by force."""
    return Restart(containerd, request.param)


@ON_BOTH
async def test_running_containers_are_found_again_and_take_commands(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000")
        await container.sh("echo kept > /tmp/note")
        await restart()
        assert (await pod.status()).state == READY
        assert (await container.status()).state == RUNNING
        assert await container.sh("cat /tmp/note") == "kept"


async def test_a_container_found_again_is_stopped_and_its_code_told(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done")
        await container.wrote(b"up\n")
        await restart()
        await container.stop(20)
        assert (await container.status()).exit_code == 7
        await container.remove()
        assert (await pod.outcome("true")).code == 0


async def test_a_log_goes_on_after_the_restart(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        script = "echo before; until [ -e /tmp/go ]; do sleep 0.02; done; echo after"
        container = await pod.run("sh", "-c", script)
        await container.wrote(b"before\n")
        await restart()
        await container.sh("touch /tmp/go")
        await container.exited()
        assert [entry.content for entry in log.entries(container.log_path)] == [b"before\n", b"after\n"]


async def test_an_exit_meanwhile_is_told_with_its_code(
    pods: Pods, restart: Restart, containerd: CriContainerd, tmp_path: Path
) -> None:
    async with pods.run() as pod:
        script = "echo up; until [ -e /work/go ]; do sleep 0.02; done; echo last words; exit 5"
        volume = cri.Mount(container_path="/work", host_path=str(tmp_path))
        container = await pod.run("sh", "-c", script, mounts=[volume])
        await container.wrote(b"up\n")
        restart.stop()
        (tmp_path / "go").touch()
        async with connect(address.parse((containerd.bundle(pod.id) / "address").read_text()), timeout=10) as shim:
            await TaskClient(shim).Wait(WaitRequest(id=container.id), timeout=20)
        await restart.start()
        assert (await container.exited()).exit_code == 5
        assert (await pod.status()).state == READY


async def test_a_created_container_is_still_startable(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.create("sh", "-c", "exit 6")
        await restart()
        assert (await container.status()).state == CREATED
        await container.start()
        assert (await container.exited()).exit_code == 6


async def test_an_ended_container_keeps_its_status(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "exit 4")
        before = await container.exited()
        await restart()
        after = await container.status()
        assert (after.state, after.exit_code, after.finished_at) == (EXITED, 4, before.finished_at)


@ON_BOTH
async def test_a_pod_found_again_is_stopped_and_removed(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        await pod.run("sleep", "1000")
        pid = (await pod.info())["pid"]
        await restart()
        await pod.stop()
        assert (await pod.status()).state == NOT_READY
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_new_containers_are_made_in_a_pod_found_again(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        await restart()
        assert (await pod.outcome("echo", "new")).stdout == b"new\n"


async def test_a_pod_that_died_meanwhile_is_not_ready_afterwards(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000")
        pid = (await pod.info())["pid"]
        restart.stop()
        os.kill(pid, signal.SIGKILL)
        await restart.start()
        await pod.becomes(NOT_READY)
        assert (await container.exited()).exit_code != 0


async def test_containerd_restarts_many_times_with_one_pod(pods: Pods, restart: Restart) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000")
        for number in range(5):
            await restart()
            assert await container.sh(f"echo {number}") == str(number)
