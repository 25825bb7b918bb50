"""A pod of several containers in one machine, over a fake guest."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from kata_protos import task_types_pb2 as types
from kata_protos import task_v2_pb2 as task
from kata_py.sandbox.events import Topic
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, FakeHypervisor
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


async def test_the_containers_of_a_pod_share_one_machine(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    created = [
        (await tasks.create_pod()).pid,
        (await tasks.create_in_pod("c1")).pid,
        (await tasks.create_in_pod("c2")).pid,
    ]
    assert created == [hypervisor.vm.pid] * 3
    assert len(hypervisor.machines) == 1
    assert [call for call in agent.calls if call.startswith("Create")] == ["CreateSandbox", *["CreateContainer"] * 3]
    for id in ("p1", "c1", "c2"):
        await tasks.start(id)
        assert (await tasks.state(id)).status == types.RUNNING


async def test_a_container_ends_and_another_takes_its_place_while_the_rest_runs(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks, "c1", "c2")
    for id in ("c2", "c3", "c4"):
        agent.process(id).exit(5)
        assert (await tasks.wait(id)).exit_status == 5
        assert (await tasks.delete(id)).exit_status == 5
        assert id not in agent.containers
        assert not (tasks.paths.shares / "p1/shared" / id / "rootfs").is_mount()
        successor = f"c{int(id[1:]) + 1}"
        await tasks.create_in_pod(successor)
        await tasks.start(successor)
    assert [(await tasks.state(id)).status for id in ("p1", "c1")] == [types.RUNNING] * 2


async def test_the_end_of_a_container_is_not_the_end_of_the_pod_but_that_of_its_first_is(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    await _pod(tasks, "c1")
    agent.process("c1").exit(1)
    await tasks.wait("c1")
    assert not hypervisor.leaving.is_set()
    await tasks.kill(signal.SIGKILL, "p1")
    assert (await tasks.wait("p1")).exit_status == 137
    async with asyncio.timeout(5):
        await hypervisor.leaving.wait()
    # CRI-O deletes the others after that, and asks of them until then.
    assert (await tasks.state("c1")).exit_status == 1
    await tasks.delete("c1")
    await tasks.shut_down()
    assert tasks.shut_downs == []
    await tasks.delete("p1")
    await tasks.shut_down()
    assert tasks.shut_downs == [None]
    assert tasks.leftovers() == []


async def test_containers_that_outlive_their_pod_are_asked_of_until_each_is_deleted(tasks: Tasks) -> None:
    await _pod(tasks, "c1", "c2")
    await tasks.kill(signal.SIGKILL, "p1")
    assert [(await tasks.wait(id)).exit_status for id in ("c1", "c2")] == [137, 137]
    await tasks.delete("p1")
    assert not tasks.service.vacant.is_set()
    assert (await tasks.state("c1")).status == types.STOPPED
    await tasks.delete("c1")
    await tasks.delete("c2")
    assert tasks.service.vacant.is_set()
    assert tasks.leftovers() == []


async def test_a_dead_machine_ends_every_container_of_the_pod(tasks: Tasks, hypervisor: FakeHypervisor) -> None:
    await _pod(tasks, "c1", "c2")
    waiting = [asyncio.create_task(tasks.wait(id)) for id in ("p1", "c1", "c2")]
    await tasks.state("p1")
    hypervisor.vm.end("killed")
    assert [(await answer).exit_status for answer in waiting] == [255, 255, 255]


async def test_events_bear_the_container_they_are_about(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks, "c1")
    agent.process("c1").exit(0)
    await tasks.wait("c1")
    await tasks.delete("c1")
    await tasks.event(Topic.DELETE)
    told = [(event.topic, event.message.container_id) for event in tasks.events]  # type: ignore[attr-defined]
    assert told == [
        (Topic.CREATE, "p1"), (Topic.START, "p1"), (Topic.CREATE, "c1"), (Topic.START, "c1"), (Topic.EXIT, "c1"),
        (Topic.DELETE, "c1"),
    ]  # fmt: skip


async def test_execs_belong_to_their_container(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks, "c1", "c2")
    for id in ("c1", "c2"):
        await tasks.exec("e1", id=id)
        await tasks.start(id, "e1")
    agent.process("c1", "e1").exit(1)
    agent.process("c2", "e1").exit(2)
    assert [(await tasks.wait(id, "e1")).exit_status for id in ("c1", "c2")] == [1, 2]


async def test_a_kill_of_one_container_spares_the_others(tasks: Tasks) -> None:
    await _pod(tasks, "c1", "c2")
    await tasks.kill(signal.SIGKILL, "c1")
    assert (await tasks.wait("c1")).exit_status == 137
    assert (await tasks.state("c2")).status == types.RUNNING


async def test_a_container_deleted_while_it_runs_is_killed_and_the_pod_runs_on(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks, "c1")
    assert (await tasks.delete("c1")).exit_status == 137
    assert list(agent.containers) == ["p1"]
    assert (await tasks.state("p1")).status == types.RUNNING


async def test_a_container_that_cannot_be_created_leaves_nothing_and_the_pod_runs_on(
    tasks: Tasks, agent: FakeAgent
) -> None:
    await _pod(tasks)
    agent.fails["CreateContainer"] = StatusError(Code.INTERNAL, "no such program")
    with pytest.raises(StatusError, match=r"create c1 failed after .*no such program"):
        await tasks.create_in_pod("c1")
    assert not (tasks.paths.shares / "p1/shared/c1/rootfs").is_mount()
    assert (await tasks.state("p1")).status == types.RUNNING
    agent.fails.clear()
    await tasks.create_in_pod("c2")


async def test_a_creation_given_up_is_undone_in_the_guest_too(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks)
    agent.hangs.add("CreateContainer")
    creating = asyncio.create_task(tasks.create_in_pod("c1"))
    await until(lambda: agent.calls.count("CreateContainer") == 2)
    deleting = asyncio.create_task(tasks.delete("c1"))
    await tasks.state("p1")
    agent.release()
    assert (await deleting).exit_status == 255
    with pytest.raises(StatusError, match="given up"):
        await creating
    assert list(agent.containers) == ["p1"]
    assert (await tasks.state("p1")).status == types.RUNNING


async def test_an_id_is_taken_once(tasks: Tasks) -> None:
    await _pod(tasks, "c1")
    request = task.CreateTaskRequest(id="c1", bundle=str(tasks.top / "bundles/c1"))
    with pytest.raises(StatusError, match="task c1 exists already") as caught:
        await tasks.client.Create(request)
    assert caught.value.code is Code.ALREADY_EXISTS


@pytest.mark.parametrize("kind", ["of another pod", "before its pod", "of a pod that has ended", "as a second pod"])
async def test_a_container_for_which_there_is_no_place_is_refused(tasks: Tasks, kind: str) -> None:
    if kind != "before its pod":
        await _pod(tasks, "c0")
    if kind == "of a pod that has ended":
        await tasks.kill(signal.SIGKILL, "p1")
        await tasks.wait("c0")
        await until(lambda: tasks.records() == [])
    if kind == "as a second pod":
        creation = tasks.create_pod("p2")
    else:
        creation = tasks.create_in_pod("c1", pod="p2" if kind == "of another pod" else "p1")
    with pytest.raises(StatusError) as caught:
        await creation
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_a_kill_for_want_of_memory_is_told_of_the_right_container(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks, "c1")
    agent.ooms.put_nowait("gone")  # was deleted meanwhile
    agent.ooms.put_nowait("c1")
    event = await tasks.event(Topic.OOM)
    assert event.message.container_id == "c1"  # type: ignore[attr-defined]
    assert not (Path((await tasks.state("c1")).bundle) / "oom").exists()


async def test_crio_finds_the_kill_for_want_of_memory_in_the_bundle(tasks: Tasks, agent: FakeAgent) -> None:
    await _pod(tasks)
    spec = tasks.pod_spec("c1", "container", "p1", ["true"])
    spec["annotations"]["io.container.manager"] = "cri-o"
    await tasks.create("c1", spec=spec)
    agent.ooms.put_nowait("c1")
    await tasks.event(Topic.OOM)
    assert (Path((await tasks.state("c1")).bundle) / "oom").exists()


async def test_the_timeline_tells_the_containers_apart(tasks: Tasks) -> None:
    await _pod(tasks, "c1")
    names = [span.name for span in tasks.record("p1").timeline]
    assert names[-4:] == ["create", "start", "create c1", "start c1"]


async def _pod(tasks: Tasks, *containers: str) -> None:
    """A pod whose containers all run."""
    await tasks.create_pod()
    await tasks.start("p1")
    for id in containers:
        await tasks.create_in_pod(id)
        await tasks.start(id)
