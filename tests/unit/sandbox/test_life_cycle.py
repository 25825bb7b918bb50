"""A container's life as the manager sees it, over a fake guest."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kata_protos import task_types_pb2 as types
from kata_protos import task_v2_pb2 as task
from kata_py.sandbox.events import Topic
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


async def test_create_start_exit_delete(tasks: Tasks, agent: FakeAgent, opener: MemoryOpener) -> None:
    created = await tasks.create()
    assert created.pid > 0
    assert (await tasks.state()).status == types.CREATED
    assert (await tasks.start()).pid == created.pid
    assert (await tasks.state()).status == types.RUNNING

    process = agent.process("c1")
    process.write(b"hello ")
    process.write(b"oops", "stderr")
    process.write(b"world")
    process.exit(3)

    waited = await tasks.wait()
    assert waited.exit_status == 3
    state = await tasks.state()
    assert (state.status, state.exit_status, state.exited_at) == (types.STOPPED, 3, waited.exited_at)
    deleted = await tasks.delete()
    assert (deleted.pid, deleted.exit_status, deleted.exited_at) == (created.pid, 3, waited.exited_at)

    assert opener.opened["c1-stdout"].written == {"stdout": b"hello world", "stderr": b"oops"}
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.START, Topic.EXIT, Topic.DELETE]
    exit_event = tasks.events[2].message
    assert (exit_event.exit_status, exit_event.exited_at, exit_event.id) == (3, waited.exited_at, "c1")  # type: ignore[attr-defined]
    assert tasks.leftovers() == []


async def test_a_wait_before_start_pends_and_two_waiters_get_the_same_answer(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.create()
    before = asyncio.create_task(tasks.wait())
    await tasks.state()
    await tasks.start()
    after = asyncio.create_task(tasks.wait())
    await tasks.state()
    assert not before.done()
    agent.process("c1").exit(7)
    assert (await before).exit_status == 7
    assert await before == await after == await tasks.wait()


async def test_the_guest_is_told_the_sandbox_before_the_container(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.create()
    made = [call for call in agent.calls if call.startswith("Create")]
    assert made == ["CreateSandbox", "CreateContainer"]
    assert agent.sandbox is not None
    assert agent.sandbox.sandbox_id == "c1"
    assert [(s.driver, s.source) for s in agent.sandbox.storages] == [("virtio-fs", "kataShared")]
    root = agent.containers["c1"].OCI.Root.Path
    assert root == "/run/kata-containers/shared/containers/c1/rootfs"


async def test_the_containers_files_are_in_the_share_while_it_lives(tasks: Tasks) -> None:
    (tasks.rootfs / "hello").touch()
    await tasks.create()
    assert (tasks.paths.shares / "c1/shared/c1/rootfs/hello").exists()
    await tasks.delete()
    assert tasks.leftovers() == []


async def test_a_created_container_can_be_deleted_and_its_waiter_is_answered(tasks: Tasks) -> None:
    await tasks.create()
    waiter = asyncio.create_task(tasks.wait())
    await tasks.state()
    await tasks.delete()
    assert (await waiter).exit_status == 255
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.DELETE]


async def test_the_exit_is_published_before_the_slow_end_of_the_machine(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    hypervisor.leave.clear()
    await tasks.run()
    agent.process("c1").exit(0)
    assert (await tasks.wait()).exit_status == 0
    await tasks.event(Topic.EXIT)
    assert tasks.records() == ["c1"]
    deleting = asyncio.create_task(tasks.delete())
    await tasks.state()
    assert not deleting.done()
    hypervisor.leave.set()
    await deleting
    assert tasks.leftovers() == []


async def test_shutdown_waits_for_the_end_of_the_machine_before_it_answers(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    await tasks.run()
    hypervisor.leave.clear()
    shutting = asyncio.create_task(tasks.shut_down(now=True))
    await until(lambda: "DestroySandbox" in agent.calls)
    assert tasks.shut_downs == []
    hypervisor.leave.set()
    await shutting
    assert tasks.shut_downs == [None]
    assert tasks.leftovers() == []


async def test_shutdown_does_nothing_while_there_is_a_task(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    await tasks.shut_down()
    assert tasks.shut_downs == []
    agent.process("c1").exit(0)
    await tasks.wait()
    await tasks.shut_down()
    assert tasks.shut_downs == []
    await tasks.delete()
    await tasks.shut_down()
    assert tasks.shut_downs == [None]


async def test_the_service_is_vacant_only_without_tasks(tasks: Tasks) -> None:
    assert tasks.service.vacant.is_set()
    await tasks.create()
    assert not tasks.service.vacant.is_set()
    await tasks.delete()
    assert tasks.service.vacant.is_set()


async def test_state_gives_the_streams_exactly_as_they_came(tasks: Tasks) -> None:
    await tasks.create(stdin="fifo:///a", stdout="file:///b?c=d", stderr="/e", terminal=True)
    state = await tasks.state()
    assert (state.stdin, state.stdout, state.stderr, state.terminal) == ("fifo:///a", "file:///b?c=d", "/e", True)
    assert state.bundle == str(tasks.top / "bundles/c1")


async def test_pids_and_connect_answer_the_machines_pid(tasks: Tasks, hypervisor: FakeHypervisor) -> None:
    await tasks.create()
    pids = await tasks.client.Pids(task.PidsRequest(id="c1"))
    assert [process.pid for process in pids.processes] == [hypervisor.vm.pid]
    known = await tasks.client.Connect(task.ConnectRequest(id="c1"))
    unknown = await tasks.client.Connect(task.ConnectRequest(id="c2"))
    assert (known.task_pid, unknown.task_pid) == (hypervisor.vm.pid, 0)
    assert known.shim_pid == unknown.shim_pid > 0


async def test_pause_and_resume_are_states_and_events(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    await tasks.client.Pause(task.PauseRequest(id="c1"))
    assert (await tasks.state()).status == types.PAUSED
    await tasks.client.Resume(task.ResumeRequest(id="c1"))
    assert (await tasks.state()).status == types.RUNNING
    await tasks.event(Topic.RESUMED)
    assert tasks.topics[2:] == [Topic.PAUSED, Topic.RESUMED]


async def test_the_timeline_names_the_stages_of_the_start(tasks: Tasks) -> None:
    await tasks.run()
    request, *spans, start = tasks.record().timeline
    assert [span.name for span in spans] == [
        "plan",
        "share",
        "network",
        "cgroups",
        "queue",
        "machine",
        "memory",
        "agent",
        "sandbox",
        "create",
    ]
    assert (request.name, start.name) == ("request", "start")
    assert all(span.ended is not None and not span.failed for span in (request, *spans, start))
    assert all(request.began <= span.began <= span.ended <= request.ended for span in spans)  # type: ignore[operator]


async def test_a_killed_container_tells_the_signal(tasks: Tasks) -> None:
    await tasks.run()
    await tasks.kill(signal.SIGKILL)
    assert (await tasks.wait()).exit_status == 137
    await tasks.kill(signal.SIGKILL)  # asking again is fine
    await tasks.kill(signal.SIGTERM)


async def test_a_container_killed_before_its_start_has_ended(tasks: Tasks) -> None:
    await tasks.create()
    await tasks.kill(signal.SIGKILL)
    assert (await tasks.wait()).exit_status == 137
    await tasks.delete()
    assert Topic.EXIT not in tasks.topics


async def test_of_two_deletes_at_once_one_is_told_that_there_is_no_such_task(tasks: Tasks) -> None:
    await tasks.run()
    answers = await asyncio.gather(tasks.delete(), tasks.delete(), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, StatusError)]
    assert [error.code for error in refused] == [Code.NOT_FOUND]
    assert tasks.leftovers() == []


async def test_a_running_container_that_is_deleted_is_killed_first(tasks: Tasks) -> None:
    await tasks.run()
    assert (await tasks.delete()).exit_status == 137
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.START, Topic.EXIT, Topic.DELETE]


async def test_the_id_is_free_again_after_delete(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    await tasks.kill(signal.SIGKILL)
    await tasks.wait()
    await tasks.delete()
    await tasks.client.Create(tasks.request("c2"))
    assert tasks.records() == ["c2"]
