"""Calls side by side."""

from __future__ import annotations

import asyncio

import pytest

from kata_caa.providers.azure.together import together


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_results_come_in_order():
    assert await together(give(1), give(2)) == [1, 2]
    assert await together() == []


async def test_the_first_failure_ends_the_others():
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await together(wait(), fail())
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_around_it_stays_a_timeout_after_a_failure():
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError

    async def bounded() -> None:
        async with asyncio.timeout(0.01):
            with pytest.raises(KeyError):
                await together(fail(), asyncio.sleep(60))
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await bounded()
