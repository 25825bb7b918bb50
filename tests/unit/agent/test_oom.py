from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_agent import oom
from kata_agent.cgroup.hierarchy import CgroupV2
from kata_agent.cgroup.oom import OomWatch
from kata_agent.errors import AgentError
from kata_agent.oom import OomEvents


async def test_events_come_in_order_each_to_one_receiver() -> None:
    events = OomEvents()
    receivers = [asyncio.create_task(events.get()) for _ in range(2)]
    await asyncio.sleep(0)

    for name in ("one", "two", "three"):
        events.put(name)

    assert [await receiver for receiver in receivers] == ["one", "two"]
    assert await events.get() == "three"


async def test_a_receiver_that_gives_up_lets_the_next_have_its_turn() -> None:
    events = OomEvents()
    first, second = asyncio.create_task(events.get()), asyncio.create_task(events.get())
    await asyncio.sleep(0)
    first.cancel()

    events.put("ctr")

    assert await second == "ctr"


async def test_more_than_anybody_takes_is_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    events = OomEvents()

    for number in range(101):
        events.put(f"ctr{number}")

    assert [await events.get() for _ in range(100)] == [f"ctr{number}" for number in range(100)]
    assert "container ctr100: out of memory, which no host has asked for" in caplog.text


async def test_at_the_end_whoever_waits_is_told_and_whoever_asks_again_is_slowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oom, "_CLOSED_PAUSE", 0.05)
    events = OomEvents()
    waiting = asyncio.create_task(events.get())
    await asyncio.sleep(0)

    events.close()

    with pytest.raises(AgentError, match="the sandbox was destroyed"):
        await waiting
    began = asyncio.get_running_loop().time()
    with pytest.raises(AgentError, match="the sandbox was destroyed"):
        await events.get()
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_a_cgroup_without_a_memory_controller_is_not_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = OomWatch(CgroupV2(tmp_path), lambda: pytest.fail("reported"))

    watch.check()
    watch.close()

    assert "kills for want of memory cannot be watched" in caplog.text
