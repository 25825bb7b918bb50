"""Execs, and their order with the container they run in."""

from __future__ import annotations

import asyncio
import itertools
import signal

import pytest

from kata_protos import task_types_pb2 as types
from kata_py.sandbox import container
from kata_py.sandbox.events import Topic
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, MemoryOpener
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


def ids(tasks: Tasks, topic: Topic) -> list[str]:
    events = (event for event in tasks.events if event.topic is topic)
    return [event.message.id for event in events]  # type: ignore[attr-defined]


async def test_an_exec_is_added_started_ended_and_forgotten(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    await tasks.run()
    await tasks.exec("e1", ["echo", "hi"])
    assert (await tasks.state(exec_id="e1")).status == types.CREATED
    assert ("c1", "e1") not in agent.processes  # only registered
    await tasks.start(exec_id="e1")
    assert list(agent.execs["e1"].process.Args) == ["echo", "hi"]
    agent.process("c1", "e1").write(b"hi\n")
    agent.process("c1", "e1").exit(5)
    waited = await tasks.wait(exec_id="e1")
    state = await tasks.state(exec_id="e1")
    assert (state.status, state.exit_status, state.exec_id, state.id) == (types.STOPPED, 5, "e1", "c1")
    deleted = await tasks.delete(exec_id="e1")
    assert (deleted.exit_status, deleted.exited_at) == (5, waited.exited_at)
    assert opener.opened["c1-e1-stdout"].written["stdout"] == b"hi\n"
    await tasks.event(Topic.DELETE)
    assert tasks.topics[2:] == [Topic.EXEC_ADDED, Topic.EXEC_STARTED, Topic.EXIT, Topic.DELETE]
    assert ids(tasks, Topic.EXIT) == ["e1"]
    with pytest.raises(StatusError, match="NOT_FOUND"):
        await tasks.state(exec_id="e1")
    assert (await tasks.state()).status == types.RUNNING


async def test_the_same_exec_id_again_already_exists(tasks: Tasks) -> None:
    await tasks.run()
    await tasks.exec("e1")
    with pytest.raises(StatusError, match="ALREADY_EXISTS: container c1 has an exec e1 already"):
        await tasks.exec("e1")
    await tasks.delete(exec_id="e1")
    await tasks.exec("e1")


async def test_the_containers_exit_comes_after_those_of_its_execs(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    for exec_id in ("e1", "e2"):
        await tasks.exec(exec_id)
        await tasks.start(exec_id=exec_id)
    ended = asyncio.create_task(tasks.wait())
    agent.process("c1").exit(0)
    await until(lambda: agent.calls.count("WaitProcess") >= 1)
    assert (await tasks.state()).status == types.RUNNING
    agent.process("c1", "e2").exit(2)
    agent.process("c1", "e1").exit(1)
    assert (await ended).exit_status == 0
    await until(lambda: tasks.topics.count(Topic.EXIT) == 3)
    assert ids(tasks, Topic.EXIT)[-1] == "c1"


async def test_an_exec_that_outlives_its_container_is_killed(
    tasks: Tasks, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "EXECS_TIMEOUT", 0.05)
    await tasks.run()
    await tasks.exec("e1")
    await tasks.start(exec_id="e1")
    agent.process("c1").exit(0)
    await tasks.wait()
    assert (await tasks.wait(exec_id="e1")).exit_status == 137
    await until(lambda: tasks.topics.count(Topic.EXIT) == 2)
    assert ids(tasks, Topic.EXIT) == ["e1", "c1"]


async def test_an_exec_whose_end_nobody_sees_does_not_hold_back_the_containers(
    tasks: Tasks, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "EXECS_TIMEOUT", 0.05)
    await tasks.run()
    await tasks.exec("e1")
    await tasks.start(exec_id="e1")
    agent.fails["SignalProcess"] = StatusError(Code.INTERNAL, "cannot")
    agent.process("c1").exit(4)
    assert (await tasks.wait()).exit_status == 4
    assert (await tasks.wait(exec_id="e1")).exit_status == 255
    await until(lambda: tasks.topics.count(Topic.EXIT) == 2)
    assert ids(tasks, Topic.EXIT) == ["e1", "c1"]


async def test_an_exec_of_a_container_that_does_not_run_cannot_start(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.create()
    await tasks.exec("early")
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: container c1 is created, not running"):
        await tasks.start(exec_id="early")
    await tasks.start()
    await tasks.exec("late")
    agent.process("c1").exit(0)
    await tasks.wait()
    with pytest.raises(StatusError, match="FAILED_PRECONDITION"):
        await tasks.start(exec_id="late")
    with pytest.raises(StatusError, match="FAILED_PRECONDITION"):
        await tasks.exec("later")


async def test_a_waiter_of_an_exec_that_never_started_is_answered_with_the_containers_end(
    tasks: Tasks, agent: FakeAgent
) -> None:
    await tasks.run()
    await tasks.exec("e1")
    waiter = asyncio.create_task(tasks.wait(exec_id="e1"))
    await tasks.state()
    agent.process("c1").exit(0)
    assert (await waiter).exit_status == 255
    await tasks.event(Topic.EXIT)
    assert ids(tasks, Topic.EXIT) == ["c1"]


async def add_execs(tasks: Tasks) -> None:
    for number in itertools.count():
        await tasks.exec(f"late-{number}")


async def test_no_exec_starts_while_the_container_ends(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    for exec_id in ("running", "waiting"):
        await tasks.exec(exec_id)
    await tasks.start(exec_id="running")
    agent.process("c1").exit(0)
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: container c1 is stopped, it cannot run late"):
        await asyncio.wait_for(add_execs(tasks), 10)  # until its exit has come to be known; its exec's is awaited
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: container c1 is stopped"):
        await tasks.start(exec_id="waiting")
    agent.process("c1", "running").exit(0)
    await tasks.wait()


async def test_an_exec_that_cannot_start_tells_why_and_has_ended(tasks: Tasks, agent: FakeAgent) -> None:
    agent.fails["ExecProcess"] = StatusError(Code.INTERNAL, "the file /nope was not found")
    await tasks.run()
    await tasks.exec("e1", ["/nope"])
    waiter = asyncio.create_task(tasks.wait(exec_id="e1"))
    with pytest.raises(StatusError, match="the file /nope was not found"):
        await tasks.start(exec_id="e1")
    assert (await waiter).exit_status == 255
    assert (await tasks.state(exec_id="e1")).status == types.STOPPED
    await tasks.delete(exec_id="e1")
    assert Topic.EXIT not in tasks.topics


async def test_a_second_start_is_refused(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: container c1 is running, it cannot become starting"):
        await tasks.start()
    assert agent.calls.count("StartContainer") == 1


async def test_a_running_exec_cannot_be_deleted_and_a_created_one_can(tasks: Tasks) -> None:
    await tasks.run()
    await tasks.exec("e1")
    await tasks.start(exec_id="e1")
    with pytest.raises(StatusError, match="FAILED_PRECONDITION"):
        await tasks.delete(exec_id="e1")
    await tasks.exec("e2")
    await tasks.delete(exec_id="e2")


async def test_signals_reach_the_process_they_are_for(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    await tasks.exec("e1")
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: exec e1 of c1 was never started"):
        await tasks.kill(signal.SIGTERM, exec_id="e1")
    await tasks.start(exec_id="e1")
    await tasks.kill(signal.SIGHUP)
    await tasks.kill(signal.SIGUSR1, exec_id="e1")
    assert agent.process("c1").signals == [signal.SIGHUP]
    assert agent.process("c1", "e1").signals == [signal.SIGUSR1]
    await tasks.kill(signal.SIGKILL, exec_id="e1")
    assert (await tasks.wait(exec_id="e1")).exit_status == 137
    assert (await tasks.state()).status == types.RUNNING


async def test_signal_0_succeeds_only_while_the_process_lives(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.create()
    await tasks.kill(0)
    await tasks.start()
    await tasks.kill(0)
    agent.process("c1").exit(0)
    await tasks.wait()
    with pytest.raises(StatusError, match="NOT_FOUND: container c1: process already finished"):
        await tasks.kill(0)
    assert "SignalProcess" not in agent.calls


async def test_2000_execs_leave_nothing_behind(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()

    async def one(exec_id: str) -> int:
        await tasks.exec(exec_id)
        await tasks.start(exec_id=exec_id)
        agent.process("c1", exec_id).exit(0)
        status = (await tasks.wait(exec_id=exec_id)).exit_status
        await tasks.delete(exec_id=exec_id)
        return status

    for batch in range(20):
        assert set(await asyncio.gather(*(one(f"e{batch}-{number}") for number in range(100)))) == {0}
    await until(lambda: tasks.topics.count(Topic.DELETE) == 2000)
    await until(lambda: not [task for task in asyncio.all_tasks() if "exec" in task.get_name()])
    assert list(agent.processes) == [("c1", "")]
