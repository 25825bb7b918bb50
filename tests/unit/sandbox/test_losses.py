"""Processes whose end nobody sees: it is told all the same, and their sandbox can always be deleted."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kata_protos import task_types_pb2 as types
from kata_py.sandbox import failure, process, sandbox
from kata_py.sandbox.events import Topic
from kata_py.sandbox.record import State
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox's end that waits for nobody."""
    for name in ("END_TIMEOUT", "LOST_TIMEOUT", "CLOSE_TIMEOUT"):
        monkeypatch.setattr(sandbox, name, 0.05)


@pytest.mark.usefixtures("hasty")
async def test_a_container_whose_start_waits_for_a_logger_can_be_deleted(tasks: Tasks, opener: MemoryOpener) -> None:
    opener.ready.clear()
    await tasks.create()
    waiter = asyncio.create_task(tasks.wait())
    starting = asyncio.create_task(tasks.start())
    await opener.asked.wait()
    assert (await tasks.delete()).exit_status == 255
    assert (await waiter).exit_status == 255
    assert tasks.service.vacant.is_set()
    opener.ready.set()
    with pytest.raises(StatusError, match="UNAVAILABLE: the agent is gone"):
        await starting
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.DELETE]
    assert tasks.leftovers() == []


@pytest.mark.usefixtures("hasty")
async def test_a_container_whose_output_is_still_being_taken_can_be_deleted(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    opener.stalled = True
    await tasks.run()
    stdio = opener.opened["c1-stdout"]
    agent.process("c1").write(b"the end")
    await stdio.asked.wait()
    assert (await tasks.delete()).exit_status == 255
    assert tasks.service.vacant.is_set()
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.START, Topic.EXIT, Topic.DELETE]
    assert tasks.leftovers() == []
    stdio.reading.set()


async def test_from_the_machines_death_on_a_process_can_be_killed(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor, opener: MemoryOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "LOST_TIMEOUT", 30.0)
    opener.stalled = True
    await tasks.run()
    stdio = opener.opened["c1-stdout"]
    agent.process("c1").write(b"the end")
    await stdio.asked.wait()
    hypervisor.vm.end("qemu was killed by signal 9")
    assert tasks.service._sandbox is not None
    await tasks.service._sandbox._agent.wait_gone()
    for number in (signal.SIGKILL, signal.SIGTERM):
        await tasks.kill(number)
    with pytest.raises(StatusError, match="UNAVAILABLE: the agent is gone"):
        await tasks.kill(signal.SIGHUP)
    assert (await tasks.state()).status == types.RUNNING
    stdio.reading.set()
    assert (await tasks.wait()).exit_status == 255


async def test_a_reader_that_stalls_does_not_hide_the_machines_death(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor, opener: MemoryOpener
) -> None:
    opener.stalled = True
    await tasks.run()
    stdio = opener.opened["c1-stdout"]
    agent.process("c1").write(b"the end")
    await stdio.asked.wait()
    hypervisor.vm.end("qemu was killed by signal 9")
    async with asyncio.timeout(process.PATIENCE / 2):
        assert (await tasks.wait()).exit_status == 255
    stdio.reading.set()


async def test_a_start_that_fails_ends_the_sandbox_at_once(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    agent.fails["StartContainer"] = StatusError(Code.INTERNAL, "crun: no such file")
    await tasks.create()
    waiter = asyncio.create_task(tasks.wait())
    with pytest.raises(StatusError, match="no such file"):
        await tasks.start()
    assert (await waiter).exit_status == 255
    async with asyncio.timeout(5):
        await hypervisor.leaving.wait()
    assert (await tasks.state()).status == types.STOPPED
    assert (await tasks.delete()).exit_status == 255
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.DELETE]
    assert tasks.leftovers() == []


async def test_how_a_machine_died_is_kept_whoever_is_the_first_to_end_its_sandbox(
    tasks: Tasks, hypervisor: FakeHypervisor
) -> None:
    await tasks.run()
    ending = tasks.service._sandbox
    assert ending is not None
    await ending._agent.close()
    stopping = asyncio.create_task(ending.stop())  # as a manager's Delete does, before QEMU's end is heard of
    await until(lambda: tasks.record().state is State.STOPPING)
    hypervisor.vm.end("qemu was killed by signal 9")
    await stopping
    (kept,) = failure.load(tasks.paths.failures)
    assert (kept.stage, kept.cause) == ("running", "qemu was killed by signal 9")
