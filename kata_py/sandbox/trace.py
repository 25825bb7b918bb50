"""What is traced of a sandbox: one piece of work, such as a pod's start, with the calls to the agent that it made.

The stages of the work are in the sandbox's timeline anyway; all that tracing adds while a pod starts is the metadata of
its calls, and their times. Spans are made of it afterwards (`kata_py.sandbox.spans`). Nothing is imported that costs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.timeline import Span
from kata_py.ttrpc import trace_context
from kata_py.ttrpc.trace_context import TraceContext

if TYPE_CHECKING:
    from kata_protos import telemetry_pb2
    from kata_py.sandbox.agent import Agent
    from kata_py.ttrpc.client import Caller

logger = logging.getLogger(__name__)

CALLS = 200  # calls that are noted of one piece of work; a guest without a share is sent thousands of files
TAKE_TIMEOUT = 0.5  # seconds for the guest's spans, before a machine goes whose start has failed


@dataclass(frozen=True, slots=True)
class Call(Span):
    """A call to the agent.

    Attributes:
        id: Its span's, which the guest's spans of it name as their parent.
    """

    id: bytes = b""


@dataclass(slots=True)
class Work:
    """One piece of work that is traced.

    Attributes:
        name: What it is: `pod start`.
        context: Its own span.
        parent: The manager's span that it is part of; None at the top of a trace of its own.
        began: When it began, in monotonic nanoseconds.
        attributes: What it is done to.
        guest_is_traced: Whether the agent was asked to keep spans.
        ended: When it ended; None while it goes on. From then on nothing is noted.
        error: How it failed; empty for a success.
        stages: The sandbox's timeline, of a start that has failed: its record is gone.
        calls: The calls to the agent that have ended.
        guest: What the agent told of them.
    """

    name: str
    context: TraceContext
    parent: TraceContext | None
    began: int
    attributes: dict[str, str]
    guest_is_traced: bool
    ended: int | None = None
    error: str = ""
    stages: Sequence[Span] = ()
    calls: list[Call] = field(default_factory=list)
    guest: list[telemetry_pb2.Span] = field(default_factory=list)

    async def take(self, agent: Agent, timeout: float) -> None:
        """Ask the agent for its spans of the calls; an agent that has none is no error."""
        if self.guest_is_traced and not self.guest:
            try:
                self.guest += await agent.take_spans([call.id for call in self.calls], timeout)
            except SandboxError as error:
                logger.info("no spans of the guest: %s", error)


_work: ContextVar[Work | None] = ContextVar("work", default=None)  # which the present task works for


@contextmanager
def working(work: Work) -> Iterator[None]:
    """What is called within, also by tasks that are begun within, is part of the work until it has ended."""
    before = _work.get()
    _work.set(work)
    try:
        yield
    finally:
        _work.set(before)


def keep(timeline: Sequence[Span]) -> None:
    """Keep the stages of the present work, whose record is about to go."""
    work = _work.get()
    if work is not None:
        work.stages = timeline


async def rescue(agent: Agent) -> None:
    """Take the guest's spans of the present work, whose machine is about to go."""
    work = _work.get()
    if work is not None:
        await work.take(agent, TAKE_TIMEOUT)


class Traced:
    """A connection whose calls carry whom they are made for, if that is traced; a `Caller`.

    Calls without a deadline wait for something that a process does: they are no part of a start.

    Args:
        caller: The connection.
        clock: Monotonic nanoseconds.
    """

    def __init__(self, caller: Caller, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._caller = caller
        self._clock = clock

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """As `kata_py.ttrpc.client.Client.call`."""
        work = _work.get()
        if work is None or work.ended is not None or timeout is None or len(work.calls) >= CALLS:
            return await self._caller.call(service, method, payload, timeout=timeout, metadata=metadata)
        context, began, failed = work.context.child(), self._clock(), True
        carried = {**(metadata or {}), trace_context.KEY: str(context)}
        try:
            answer = await self._caller.call(service, method, payload, timeout=timeout, metadata=carried)
            failed = False
            return answer
        finally:
            work.calls.append(Call(f"{service}/{method}", began, self._clock(), failed, context.span))
