"""What the manager is told of a sandbox: one queue in order, one sender.

Topics and messages are containerd's (`core/runtime/events.go`, `api/events/task.proto`). A manager that
does not listen never holds up a request: beyond the limit the oldest event is dropped, with a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

logger = logging.getLogger(__name__)

LIMIT = 2048  # as containerd's own publisher
DRAIN_TIMEOUT = 5.0  # seconds


class Topic(enum.StrEnum):
    """What happened."""

    CREATE = "/tasks/create"
    START = "/tasks/start"
    EXIT = "/tasks/exit"
    DELETE = "/tasks/delete"
    EXEC_ADDED = "/tasks/exec-added"
    EXEC_STARTED = "/tasks/exec-started"
    PAUSED = "/tasks/paused"
    RESUMED = "/tasks/resumed"
    OOM = "/tasks/oom"


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        topic: What happened.
        message: The message of `kata_protos.events_pb2` that belongs to the topic.
        time: When, in nanoseconds since the epoch.
    """

    topic: Topic
    message: Message
    time: int = field(default_factory=time.time_ns)


Publisher = Callable[[Event], Awaitable[None]]
"""Sends one event to the manager, retrying as it sees fit; what it raises is logged and the event is lost."""


class EventQueue:
    """Events on their way to the manager, in the order they were put.

    Args:
        publisher: Sends one event; never called twice at once.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._events: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, topic: Topic, message: Message) -> None:
        """Queue an event, never waiting."""
        if len(self._events) == LIMIT:
            logger.warning("the manager does not take events: dropped the oldest, %s", self._events.popleft().topic)
        self._events.append(Event(topic, message))
        self._filled.set()
        self._empty.clear()

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Run the one sender; at the end what is queued is still sent, within a few seconds."""
        sender = asyncio.create_task(self._send(), name="event sender")
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await self._empty.wait()
            except TimeoutError:
                logger.warning("%d events were not taken within %g s", len(self._events), DRAIN_TIMEOUT)
            sender.cancel()
            await asyncio.wait([sender])

    async def _send(self) -> None:
        while True:
            await self._filled.wait()
            while self._events:
                event = self._events[0]
                try:
                    await self._publisher(event)
                except Exception as error:
                    logger.warning("the manager did not take %s: %s", event.topic, error)
                if self._events and self._events[0] is event:
                    self._events.popleft()
            self._filled.clear()
            self._empty.set()
