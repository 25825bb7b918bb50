from __future__ import annotations

import asyncio
import os
import signal

import pytest

from kata_agent.container import stdio
from kata_agent.container.process import Process, ProcessTable
from kata_agent.container.reaper import Child
from kata_agent.errors import AlreadyExists, NotFound


class _Ended(Child):
    """A child of which nothing is left but its code."""

    def __init__(self, code: int) -> None:
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        exited.set_result(code)
        super().__init__(1 << 22, exited)


def _process(code: int | None = None) -> Process:
    with stdio.pipes() as (streams, _):
        pass
    if code is not None:
        return Process(_Ended(code), streams)
    return Process(Child(os.getpid(), asyncio.get_running_loop().create_future()), streams)


@pytest.fixture
async def table() -> ProcessTable:
    table = ProcessTable("ctr")
    table.add("ctr", _process(0))
    return table


async def test_an_empty_id_is_the_first_process(table: ProcessTable) -> None:
    assert table.find("") is table.find("ctr")


async def test_an_unknown_id_is_not_found_and_named(table: ProcessTable) -> None:
    with pytest.raises(NotFound, match="InvalidExecId: no process x in container ctr"):
        table.find("x")
    with pytest.raises(NotFound, match="InitProcessNotFound"):
        ProcessTable("empty").find("")


async def test_an_id_is_taken_from_its_reservation_on(table: ProcessTable) -> None:
    table.reserve("x")

    with pytest.raises(AlreadyExists, match="process x of container ctr already exists"):
        table.reserve("x")


async def test_a_reservation_given_back_can_be_taken(table: ProcessTable) -> None:
    table.reserve("x")
    table.release("x")

    table.reserve("x")


async def test_an_id_is_free_again_once_its_end_was_told(table: ProcessTable) -> None:
    table.reserve("x")
    table.add("x", _process(5))
    with pytest.raises(AlreadyExists):
        table.reserve("x")

    assert await table.find("x").wait() == 5
    table.reserve("x")
    table.add("x", _process(6))

    assert await table.find("x").wait() == 6


async def test_the_first_process_is_never_replaced(table: ProcessTable) -> None:
    await table.find("").wait()

    with pytest.raises(AlreadyExists):
        table.reserve("ctr")


async def test_the_last_codes_are_kept_and_no_more(table: ProcessTable) -> None:
    for number in range(200):
        table.reserve(f"x{number}")
        table.add(f"x{number}", _process(number))
        assert await table.find(f"x{number}").wait() == number

    assert await table.find("x199").wait() == 199
    assert await table.find("").wait() == 0
    with pytest.raises(NotFound):
        table.find("x0")


async def test_one_nobody_waited_for_is_kept_whatever_comes_after(table: ProcessTable) -> None:
    table.add("forgotten", _process(42))
    for number in range(200):
        table.add(f"x{number}", _process(0))
        await table.find(f"x{number}").wait()

    assert await table.find("forgotten").wait() == 42


async def test_a_signal_to_an_ended_process_is_no_error() -> None:
    _process(0).signal(signal.SIGTERM)


async def test_only_the_first_process_of_a_namespace_can_ignore_by_having_no_handler() -> None:
    assert not _process().ignores(signal.SIGTERM)
