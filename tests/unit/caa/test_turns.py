"""Turns: so many at a time, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest

from kata_caa.turns import Turns


class Work:
    """Takes turns, and writes down who had one."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: list[int] = []
        self.go_on: dict[int, asyncio.Event] = {}
        self.most = 0

    async def do(self, number: int) -> None:
        self.go_on[number] = asyncio.Event()
        async with self.turns.turn():
            self.most = max(self.most, self.turns.busy)
            self.began.append(number)
            await self.go_on[number].wait()

    async def begin(self, *numbers: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.do(number), name=f"work-{number}") for number in numbers]
        await settle()
        return tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_as_allowed_work_at_a_time_and_the_others_in_their_order():
    work = Work(Turns(2))
    tasks = await work.begin(0, 1, 2, 3, 4)
    assert (work.began, work.turns.busy, work.turns.waiting) == ([0, 1], 2, 3)
    for number in (1, 0, 2, 3, 4):
        work.go_on[number].set()
        await settle()
    await asyncio.gather(*tasks)
    assert work.began == [0, 1, 2, 3, 4]
    assert (work.most, work.turns.busy, work.turns.waiting) == (2, 0, 0)


async def test_who_comes_later_does_not_pass_the_queue():
    work = Work(Turns(1))
    tasks = await work.begin(0, 1)
    work.go_on[0].set()
    tasks += [asyncio.create_task(work.do(2))]  # runs before 1 is woken
    await settle()
    assert work.began == [0, 1]
    work.go_on[1].set()
    await settle()
    work.go_on[2].set()
    await asyncio.gather(*tasks)


async def test_who_leaves_the_queue_holds_up_nobody():
    work = Work(Turns(1))
    tasks = await work.begin(0, 1, 2)
    tasks[1].cancel()
    await settle()
    assert work.turns.waiting == 1
    work.go_on[0].set()
    await settle()
    assert work.began == [0, 2]
    work.go_on[2].set()
    await asyncio.wait(tasks)
    assert work.turns.busy == 0


@pytest.mark.parametrize("first", ["cancel", "go on"])
async def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on(first):
    work = Work(Turns(1))
    tasks = await work.begin(0, 1, 2)
    if first == "cancel":
        tasks[1].cancel()
        work.go_on[0].set()
    else:
        work.go_on[0].set()
        await asyncio.sleep(0)  # 0 ends, and 1 has the turn without having run
        tasks[1].cancel()
    await settle()
    assert work.began == [0, 2]
    work.go_on[2].set()
    await asyncio.wait(tasks)
    assert (work.turns.busy, work.turns.waiting) == (0, 0)


async def test_a_failure_gives_the_turn_back():
    turns = Turns(1)
    with pytest.raises(ValueError, match="no"):
        async with turns.turn():
            raise ValueError("no")
    assert turns.busy == 0


def test_no_turns_at_all_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        Turns(0)
