from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message

from kata_protos.events_pb2 import TaskPaused
from kata_py.sandbox import events
from kata_py.sandbox.events import Event, EventQueue, Topic


def paused(id: str) -> Message:
    return TaskPaused(container_id=id)


def ids(sent: list[Event]) -> list[str]:
    return [event.message.container_id for event in sent]  # type: ignore[attr-defined]  # all are TaskPaused


async def test_events_are_sent_in_the_order_they_were_put_with_one_sender() -> None:
    sent: list[Event] = []
    at_once = 0

    async def publish(event: Event) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await asyncio.sleep(0)
        sent.append(event)
        at_once -= 1

    queue = EventQueue(publish)
    queue.put(Topic.PAUSED, paused("before"))
    async with queue.sending():
        for number in range(10):
            queue.put(Topic.PAUSED, paused(str(number)))

    assert ids(sent) == ["before", *map(str, range(10))]


async def test_an_event_keeps_the_time_it_was_put() -> None:
    sent: list[Event] = []
    gate = asyncio.Event()

    async def publish(event: Event) -> None:
        await gate.wait()
        sent.append(event)

    queue = EventQueue(publish)
    async with queue.sending():
        queue.put(Topic.PAUSED, paused("a"))
        (queued,) = queue._events
        gate.set()
    assert sent == [queued]


async def test_a_failing_manager_loses_an_event_and_gets_the_next(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Event] = []

    async def publish(event: Event) -> None:
        if not sent:
            sent.append(event)
            raise ConnectionError("containerd is away")
        sent.append(event)

    queue = EventQueue(publish)
    async with queue.sending():
        queue.put(Topic.PAUSED, paused("lost"))
        queue.put(Topic.PAUSED, paused("sent"))
    assert ids(sent) == ["lost", "sent"]
    assert "containerd is away" in caplog.text


async def test_a_manager_that_never_answers_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "DRAIN_TIMEOUT", 0.01)

    async def publish(event: Event) -> None:
        await asyncio.Event().wait()

    queue = EventQueue(publish)
    async with asyncio.timeout(2), queue.sending():
        queue.put(Topic.PAUSED, paused("a"))


async def test_beyond_the_limit_the_oldest_event_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIMIT", 2)
    sent: list[Event] = []

    async def publish(event: Event) -> None:
        sent.append(event)

    queue = EventQueue(publish)
    for id in "abc":
        queue.put(Topic.PAUSED, paused(id))
    async with queue.sending():
        pass
    assert ids(sent) == ["b", "c"]


async def test_a_full_queue_drops_nothing_that_was_not_sent_when_the_head_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LIMIT", 2)
    sent: list[Event] = []
    started, gate = asyncio.Event(), asyncio.Event()

    async def publish(event: Event) -> None:
        started.set()
        await gate.wait()
        sent.append(event)

    queue = EventQueue(publish)
    async with queue.sending():
        queue.put(Topic.PAUSED, paused("a"))
        await started.wait()
        queue.put(Topic.PAUSED, paused("b"))
        queue.put(Topic.PAUSED, paused("c"))  # drops "a", which is being sent
        gate.set()
    assert ids(sent) == ["a", "b", "c"]
