from __future__ import annotations

import asyncio

import pytest

from kata_agent import trace
from kata_agent.trace import Span, Tracer, span
from kata_py.ttrpc.trace_context import TraceContext

CALLER = TraceContext.root()


def tree(spans: list[Span]) -> dict[str, str]:
    names = {each.id: each.name for each in spans} | {CALLER.span: "host"}
    return {each.name: names.get(each.parent, "") for each in spans}


async def test_steps_belong_to_the_call_that_they_are_made_for_also_in_threads_and_tasks() -> None:
    tracer = Tracer()

    def in_thread() -> None:
        with span("mount"):
            pass

    async def task() -> None:
        with span("crun create"):
            await asyncio.sleep(0)

    with tracer.call("CreateContainer", CALLER, **{"container.id": "c1"}):
        with span("storage"):
            await asyncio.to_thread(in_thread)
        await asyncio.create_task(task())
    spans = tracer.take([CALLER.span])
    assert tree(spans) == {
        "mount": "storage",
        "storage": "CreateContainer",
        "crun create": "CreateContainer",
        "CreateContainer": "host",
    }
    assert spans[-1].attributes == {"container.id": "c1"}
    assert all(spans[-1].began <= each.began <= each.ended <= spans[-1].ended for each in spans)
    assert tracer.take([CALLER.span]) == []


@pytest.mark.parametrize("caller", [None, CALLER._replace(sampled=False)])
def test_a_call_that_nobody_traces_leaves_nothing(caller: TraceContext | None) -> None:
    tracer = Tracer()
    with tracer.call("CreateContainer", caller), span("storage"):
        pass
    with span("of no call"):
        pass
    assert tracer.take([CALLER.span]) == []


def test_a_step_that_fails_says_how() -> None:
    tracer = Tracer()
    with pytest.raises(OSError, match="full"), tracer.call("CreateContainer", CALLER), span("storage"):
        raise OSError("the disk is full" + "!" * 1000)
    assert [each.error[:16] for each in tracer.take([CALLER.span])] == ["the disk is full"] * 2
    with pytest.raises(asyncio.CancelledError), tracer.call("CreateContainer", CALLER):
        raise asyncio.CancelledError
    (cancelled,) = tracer.take([CALLER.span])
    assert cancelled.error == "CancelledError"


def test_a_host_that_takes_nothing_costs_no_more_than_some_calls() -> None:
    tracer = Tracer()
    callers = [TraceContext.root() for _ in range(trace.CALLS + 5)]
    for caller in callers:
        with tracer.call("call", caller):
            for _ in range(trace.SPANS + 5):
                with span("step"):
                    pass
    taken = [tracer.take([caller.span]) for caller in callers]
    assert [bool(spans) for spans in taken] == [False] * 5 + [True] * trace.CALLS
    assert len(taken[-1]) == trace.SPANS + 1


def test_the_boots_steps_end_where_the_next_begins_and_are_handed_over_once() -> None:
    tracer = Tracer([("mounts", 1), ("imports", 5), ("", 7)])
    assert [(each.name, each.began, each.ended, each.parent) for each in tracer.take([])] == [
        ("mounts", 1, 5, b""),
        ("imports", 5, 7, b""),
    ]
    assert tracer.take([]) == []
