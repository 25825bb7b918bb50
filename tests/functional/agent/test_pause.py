"""Pausing: what stands still, what is refused meanwhile, and what ends it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import cgroups
from tests.drivers.pod import TIMEOUT, Pod

pytestmark = pytest.mark.root


async def test_a_paused_container_stands_still_until_it_is_resumed(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "while read line; do echo $line; done")

    await pod.pause("ctr")
    await pod.write("ctr", b"heard\n")
    reading = asyncio.create_task(pod.read("ctr"))
    await pod.stats("ctr")
    assert not reading.done()
    await pod.resume("ctr")

    assert await reading == b"heard\n"


async def test_a_created_container_can_be_paused_and_is_started_once_resumed(pod: Pod) -> None:
    await pod.create("ctr", "sh", "-c", "exit 5")
    await pod.pause("ctr")

    with pytest.raises(StatusError, match="cannot start container ctr: it is paused; resume it first") as refusal:
        await pod.start("ctr")

    assert refusal.value.code is Code.FAILED_PRECONDITION
    await pod.resume("ctr")
    await pod.start("ctr")
    assert await pod.wait("ctr") == 5


async def test_nothing_is_run_in_a_paused_container(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.pause("ctr")

    with pytest.raises(StatusError, match="cannot exec x in container ctr: it is paused") as refusal:
        await pod.exec("ctr", "x", "true")

    assert refusal.value.code is Code.FAILED_PRECONDITION
    await pod.resume("ctr")
    assert (await pod.shell("ctr", "exit 4", "x")).code == 4


async def test_an_exec_under_way_is_waited_for(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(pod.exec("ctr", f"x{number}", "sleep", "1000"))
        await asyncio.sleep(0)
        pausing = group.create_task(pod.pause("ctr"))

    assert pausing.done()
    await pod.resume("ctr")


@pytest.mark.parametrize("exec_id", ["", "ctr"])
async def test_sigkill_ends_a_paused_container(pod: Pod, exec_id: str) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sleep", "1000")
    await pod.pause("ctr")

    await pod.signal("ctr", signal.SIGKILL, exec_id)

    assert await pod.wait("ctr") == 137
    assert await pod.wait("ctr", "x") == 137


async def test_sigkill_ends_an_exec_of_a_paused_container(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sleep", "1000")
    await pod.pause("ctr")

    await pod.signal("ctr", signal.SIGKILL, "x")

    assert await pod.wait("ctr", "x") == 137


async def test_a_paused_container_can_be_removed(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "sleep 1000 & sleep 1000")
    await pod.pause("ctr")

    await pod.remove("ctr", timeout=10)

    assert pod.processes() == {}
    assert not cgroups.directory("memory", "/pod/ctr", pod.path("/sys/fs/cgroup")).exists()


async def test_only_what_runs_is_paused_and_only_what_is_paused_is_resumed(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError, match="current status is: running, not paused") as refusal:
        await pod.resume("ctr")
    assert refusal.value.code is Code.INTERNAL
    await pod.pause("ctr")
    with pytest.raises(StatusError, match="failed to pause container ctr: current status is: paused"):
        await pod.pause("ctr")
    await pod.signal("ctr", signal.SIGKILL)
    await pod.wait("ctr")
    with pytest.raises(StatusError, match="current status is: stopped"):
        await pod.pause("ctr")


async def test_an_unknown_container_is_told_by_its_id(pod: Pod) -> None:
    requests = (
        pod.calls.PauseContainer(agent.PauseContainerRequest(container_id="none"), timeout=TIMEOUT),
        pod.calls.ResumeContainer(agent.ResumeContainerRequest(container_id="none"), timeout=TIMEOUT),
        pod.calls.UpdateContainer(agent.UpdateContainerRequest(container_id="none"), timeout=TIMEOUT),
    )

    for request in requests:
        with pytest.raises(StatusError, match="invalid container id") as refusal:
            await request
        assert refusal.value.code is Code.INVALID_ARGUMENT
