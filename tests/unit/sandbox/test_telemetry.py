"""The calls that agents of ours alone have, to agents that have them not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError, Unimplemented
from kata_py.sandbox.trace import Work
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.trace_context import TraceContext

UNKNOWN = [Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED]  # of ttrpc in Rust, as upstream's agent is served, and in Go


class Refusing:
    """A connection on which every call fails."""

    closed = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def call(self, *args: object, **kwargs: object) -> bytes:
        raise self._error


def agent(error: Exception) -> Agent:
    return Agent(cast(Client, cast(Any, Refusing(error))))


@pytest.mark.parametrize("code", UNKNOWN)
async def test_an_agent_of_upstreams_is_told_of_in_words(code: Code) -> None:
    with pytest.raises(Unimplemented, match="this guest's agent has no such call: agent: no such service"):
        await agent(StatusError(code, "no such service")).set_log_level("debug")


@pytest.mark.parametrize(
    "error",
    [
        *(StatusError(code, "?") for code in (*UNKNOWN, Code.PERMISSION_DENIED, Code.DEADLINE_EXCEEDED)),
        ConnectionClosed("?"),
    ],
)
async def test_a_guest_without_spans_is_no_error(error: Exception) -> None:
    work = Work("pod start", TraceContext.root(), None, 0, {}, guest_is_traced=True)
    await work.take(agent(error), 1.0)
    assert work.guest == []


async def test_a_guest_that_was_not_asked_to_trace_is_not_asked_for_spans() -> None:
    work = Work("pod start", TraceContext.root(), None, 0, {}, guest_is_traced=False)
    await work.take(agent(AssertionError("it was asked")), 1.0)


async def test_an_agent_that_is_gone_is_not_said_to_lack_the_call() -> None:
    with pytest.raises(SandboxError) as caught:
        await agent(ConnectionClosed("lost")).set_log_level("debug")
    assert not isinstance(caught.value, Unimplemented)
