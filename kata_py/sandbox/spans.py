"""From a piece of work that was traced to its spans: the work, its stages, its calls, and the guest's part of them.

The guest's clock counts from its own boot. Each call is seen by both: it came to the guest after it was sent, and was
answered before its answer was here. All calls together leave little room for how far the clocks are apart, and its
middle is taken. The guest is not trusted: what it tells is bounded, and lies within the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from kata_py.sandbox.timeline import Span, nested
from kata_py.sandbox.trace import Call, Work

if TYPE_CHECKING:
    from kata_protos import telemetry_pb2

GUEST_SPANS = 1000
ATTRIBUTES = 10
LENGTH = 500  # characters of what the guest says
BOOT = "agent"  # the stage that the guest comes up in

_CLIENT: Literal["client"] = "client"
_SERVER: Literal["server"] = "server"


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A span, ready to be told.

    Attributes:
        id: Eight bytes.
        parent: The id of the span it is part of; empty for the first of a trace.
        name: What it is.
        began: When, in nanoseconds since the epoch.
        ended: When it ended.
        error: How it failed; empty for a success.
        attributes: What it is about.
        side: Of a call between the two, whose side it is.
        is_guests: Whether the guest tells it.
    """

    id: bytes
    parent: bytes
    name: str
    began: int
    ended: int
    error: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    side: Literal["client", "server"] | None = None
    is_guests: bool = False


def spans_of(work: Work, timeline: Iterable[Span], epoch: int) -> list[TraceSpan]:
    """The spans of a piece of work, its own first.

    Args:
        work: Which has ended.
        timeline: Its stages; one that lies within another is part of it.
        epoch: What a time of the monotonic clock lacks of nanoseconds since the epoch.
    """
    assert work.ended is not None
    root = work.context.span
    parent = work.parent.span if work.parent else b""
    spans = [TraceSpan(root, parent, work.name, work.began, work.ended, work.error, work.attributes)]
    boot, above = root, [root]
    for stage, depth in nested([*timeline, *work.calls]):
        id, side = (stage.id, _CLIENT) if isinstance(stage, Call) else (os.urandom(8), None)
        ended = work.ended if stage.ended is None else stage.ended
        error = "failed" if stage.failed else ""
        del above[depth + 1 :]
        spans.append(TraceSpan(id, above[-1], stage.name, stage.began, ended, error, side=side))
        above.append(id)
        if stage.name == BOOT:
            boot = id
    return [
        replace(span, began=span.began + epoch, ended=span.ended + epoch) for span in (*spans, *_guests(work, boot))
    ]


def _guests(work: Work, boot: bytes) -> Iterator[TraceSpan]:
    """The guest's spans whose parents there are."""
    calls = {call.id for call in work.calls}
    told = [span for span in work.guest[:GUEST_SPANS] if len(span.id) == len(boot) and span.id not in calls]
    ahead = _ahead(work.calls, told)
    if ahead is None or work.ended is None:
        return
    known = calls | {span.id for span in told}
    for span in told:
        if span.parent and span.parent not in known:
            continue
        began, ended = (min(max(at - ahead, work.began), work.ended) for at in (span.began, span.ended))
        yield TraceSpan(
            id=span.id,
            parent=span.parent or boot,
            name=span.name[:LENGTH],
            began=began,
            ended=max(began, ended),
            error=span.error[:LENGTH],
            attributes={key[:LENGTH]: value[:LENGTH] for key, value in list(span.attributes.items())[:ATTRIBUTES]},
            side=_SERVER if span.parent in calls else None,
            is_guests=True,
        )


def _ahead(calls: Iterable[Call], told: Iterable[telemetry_pb2.Span]) -> int | None:
    """How many nanoseconds the guest's clock is ahead of ours; None when no call was seen by both."""
    sent = {call.id: call for call in calls}
    both = [(sent[span.parent], span) for span in told if span.parent in sent]
    if not both:
        return None
    least = max(span.ended - (call.ended or 0) for call, span in both)
    most = min(span.began - call.began for call, span in both)
    return (least + most) // 2
