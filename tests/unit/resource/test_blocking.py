from __future__ import annotations

import asyncio
import threading

import pytest

from kata_py.resource.blocking import off_loop


async def test_a_cancelled_caller_waits_for_its_blocking_call() -> None:
    entered, gate = threading.Event(), threading.Event()
    ended = False

    def blocking() -> None:
        nonlocal ended
        entered.set()
        assert gate.wait(5)
        ended = True

    caller = asyncio.create_task(off_loop(blocking))
    await asyncio.to_thread(entered.wait, 5)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended
