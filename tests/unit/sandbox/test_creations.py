"""Creations that are given up: undone once, to the end, however often that is asked for."""

from __future__ import annotations

import asyncio

import pytest

from kata_protos import task_v2_pb2 as task
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, FakeHypervisor
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


async def test_a_second_deletion_does_not_cut_the_undoing_of_a_creation_short(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    agent.hangs.add("CreateContainer")
    hypervisor.leave.clear()
    creating = asyncio.create_task(tasks.create())
    await until(lambda: "CreateContainer" in agent.calls)
    first = asyncio.create_task(tasks.delete())
    await hypervisor.leaving.wait()
    second = asyncio.create_task(tasks.delete())
    done, _ = await asyncio.wait([creating, first, second], timeout=0.2)
    assert not done
    assert tasks.records() == ["c1"]
    hypervisor.leave.set()
    assert [answer.exit_status for answer in await asyncio.gather(first, second)] == [255, 255]
    await asyncio.wait([creating])
    assert tasks.leftovers() == []


async def test_a_deletion_does_not_cut_the_undoing_of_a_failed_creation_short(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    agent.fails["CreateContainer"] = StatusError(Code.INTERNAL, "crun: no such user")
    hypervisor.leave.clear()
    creating = asyncio.create_task(tasks.create())
    await hypervisor.leaving.wait()
    deletion = asyncio.create_task(tasks.delete())
    done, _ = await asyncio.wait([creating, deletion], timeout=0.2)
    assert not done
    hypervisor.leave.set()
    with pytest.raises(StatusError, match="no such user"):
        await creating
    assert (await deletion).exit_status == 255
    assert tasks.leftovers() == []


async def test_the_shim_is_vacant_after_a_creation_whose_handler_was_cancelled_twice(
    tasks: Tasks, agent: FakeAgent, hypervisor: FakeHypervisor
) -> None:
    agent.hangs.add("CreateContainer")
    hypervisor.leave.clear()
    handler = asyncio.create_task(tasks.service.Create(tasks.request(), Context(task.DESCRIPTOR.package, "Create")))
    await until(lambda: "CreateContainer" in agent.calls)
    for _ in range(2):
        handler.cancel()
        await asyncio.wait([handler], timeout=0.05)
    assert handler.cancelled()
    assert not tasks.service.vacant.is_set()
    hypervisor.leave.set()
    async with asyncio.timeout(5):
        await tasks.service.vacant.wait()
    assert tasks.leftovers() == []
