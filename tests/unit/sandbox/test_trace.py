from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from kata_py.sandbox import trace
from kata_py.sandbox.trace import Traced, Work, working
from kata_py.ttrpc.trace_context import TraceContext


class Agent:
    """Notes the metadata of what it is called with."""

    def __init__(self) -> None:
        self.carried: list[Mapping[str, str] | None] = []

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        self.carried.append(metadata)
        if method == "Fails":
            raise ConnectionError
        return payload


@pytest.fixture
def agent() -> Agent:
    return Agent()


def work() -> Work:
    return Work("pod start", TraceContext.root(), None, 0, {}, guest_is_traced=False)


async def test_a_call_of_traced_work_carries_a_span_of_its_own_and_is_noted(agent: Agent) -> None:
    caller, pod = Traced(agent, iter((1, 3, 5, 9)).__next__), work()
    with working(pod):
        assert await asyncio.create_task(caller.call("s", "m", b"x", timeout=1, metadata={"mine": "y"})) == b"x"
        with pytest.raises(ConnectionError):
            await caller.call("s", "Fails", b"", timeout=1)
    assert [(call.name, call.began, call.ended, call.failed) for call in pod.calls] == [
        ("s/m", 1, 3, False),
        ("s/Fails", 5, 9, True),
    ]
    first = pod.context._replace(span=pod.calls[0].id)
    assert agent.carried[0] == {"mine": "y", "traceparent": str(first)}
    assert len({pod.context.span, *(call.id for call in pod.calls)}) == 3


async def test_calls_of_no_work_and_those_that_wait_for_processes_are_as_they_were(agent: Agent) -> None:
    caller, pod = Traced(agent), work()
    await caller.call("s", "m", b"", timeout=1)
    with working(pod):
        await caller.call("s", "ReadStdout", b"", metadata={"mine": "y"})
        pod.ended = 1
        await caller.call("s", "m", b"", timeout=1)
    assert agent.carried == [None, {"mine": "y"}, None]
    assert pod.calls == []


async def test_of_a_guest_that_is_sent_thousands_of_files_the_first_calls_are_noted(agent: Agent) -> None:
    caller, pod = Traced(agent), work()
    with working(pod):
        for _ in range(trace.CALLS + 10):
            await caller.call("s", "CopyFile", b"", timeout=1)
    assert len(pod.calls) == trace.CALLS
    assert agent.carried[-10:] == [None] * 10
