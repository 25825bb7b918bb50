"""Spans of what was traced: their tree, and clocks that the two sides do not share."""

from __future__ import annotations

from typing import Any

from kata_protos import telemetry_pb2
from kata_py.sandbox import spans
from kata_py.sandbox.spans import TraceSpan, spans_of
from kata_py.sandbox.timeline import Span
from kata_py.sandbox.trace import Call, Work
from kata_py.ttrpc.trace_context import TraceContext

EPOCH = 10**18
AHEAD = 7_000_000  # the guest's clock against the host's
FIRST, SECOND = b"call 1--", b"call 2--"
STAGES = (Span("request", 0, 900), Span("agent", 100, 300), Span("create", 400, 800), Span("start", 910, 990))


def work(*guest: telemetry_pb2.Span) -> Work:
    calls = [Call("CreateContainer", 420, 780, False, FIRST), Call("StartContainer", 920, 960, False, SECOND)]
    pod = Work("pod start", TraceContext.root(), None, 0, {"container.id": "c1"}, True, ended=1000)
    pod.calls, pod.guest = calls, list(guest)
    return pod


def guests(id: bytes, parent: bytes, name: str, began: int, ended: int, **fields: Any) -> telemetry_pb2.Span:
    """A span of the guest's, by the host's clock."""
    return telemetry_pb2.Span(id=id, parent=parent, name=name, began=began + AHEAD, ended=ended + AHEAD, **fields)


def tree(told: list[TraceSpan]) -> dict[str, str]:
    names = {span.id: span.name for span in told}
    return {span.name + "'" * span.is_guests: names.get(span.parent, "") for span in told}


def times(told: list[TraceSpan]) -> dict[str, tuple[int, int]]:
    return {span.name: (span.began - EPOCH, span.ended - EPOCH) for span in told if span.is_guests}


def test_stages_calls_and_the_guests_part_make_one_tree() -> None:
    told = spans_of(
        work(
            guests(b"boot----", b"", "boot: imports", 200, 250),
            guests(b"create--", FIRST, "CreateContainer", 500, 700),
            guests(b"crun----", b"create--", "crun create", 600, 690, error="no such program"),
        ),
        STAGES,
        EPOCH,
    )
    assert tree(told) == {
        "pod start": "",
        "request": "pod start",
        "agent": "request",
        "create": "request",
        "CreateContainer": "create",
        "start": "pod start",
        "StartContainer": "start",
        "boot: imports'": "agent",
        "CreateContainer'": "CreateContainer",
        "crun create'": "CreateContainer",
    }
    sides = {span.name: span.side for span in told if span.side}
    assert sides == {"CreateContainer": "server", "StartContainer": "client"}
    assert [span.error for span in told if span.error] == ["no such program"]
    assert told[0].attributes == {"container.id": "c1"}


def test_a_part_of_the_managers_trace_has_the_managers_span_for_parent() -> None:
    pod, manager = work(), TraceContext.root()
    pod.parent = manager
    assert spans_of(pod, (), EPOCH)[0].parent == manager.span


def test_the_guests_clock_is_told_by_the_calls_that_leave_the_least_room() -> None:
    told = spans_of(
        work(guests(b"create--", FIRST, "create", 430, 600), guests(b"start---", SECOND, "start", 930, 955)),
        STAGES,
        EPOCH,
    )
    # Between the earliest that the first can be and the latest that the second can be there are 15 ns.
    assert times(told) == {"create": (428, 598), "start": (928, 953)}


def test_what_began_and_never_ended_ends_with_the_work() -> None:
    (_, stage, *_) = spans_of(work(), [Span("create", 400, failed=True)], EPOCH)
    assert (stage.name, stage.ended - EPOCH, stage.error) == ("create", 1000, "failed")


def test_a_guest_can_tell_nothing_beyond_the_work_and_no_more_than_some() -> None:
    true = guests(b"create--", FIRST, "create", 430, 770)
    pod = work(
        true,
        guests(b"before--", FIRST, "before", -5000, -4000),
        guests(b"after---", b"create--", "after", 800, 10**9),
        guests(b"backward", b"create--", "backwards", 700, 600),
        guests(b"orphan--", b"nobody--", "orphan", 500, 600),
        guests(b"short", FIRST, "short", 500, 600),
        guests(SECOND, FIRST, "masked", 500, 600),
        guests(
            b"long----",
            FIRST,
            "x" * 9999,
            500,
            600,
            error="y" * 9999,
            attributes={str(n): "z" * 9999 for n in range(99)},
        ),
        *(guests(n.to_bytes(8), b"create--", "flood", 500, 600) for n in range(2 * spans.GUEST_SPANS)),
    )
    told = [span for span in spans_of(pod, STAGES, EPOCH) if span.is_guests]
    assert len(told) <= spans.GUEST_SPANS
    assert all(0 <= span.began - EPOCH <= span.ended - EPOCH <= 1000 for span in told)
    assert {"orphan", "short", "masked"}.isdisjoint(span.name for span in told)
    [long] = [span for span in told if span.name.startswith("x")]
    assert len(long.name) == len(long.error) == spans.LENGTH
    assert len(long.attributes) == spans.ATTRIBUTES
    assert {len(value) for value in long.attributes.values()} == {spans.LENGTH}


def test_without_a_call_that_both_have_seen_the_guests_times_mean_nothing() -> None:
    told = spans_of(work(guests(b"boot----", b"", "boot: imports", 200, 250)), STAGES, EPOCH)
    assert not any(span.is_guests for span in told)
