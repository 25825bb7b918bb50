"""The agent's own spans: what a traced call spends its time on, and how the guest came up.

They are kept here until the host takes them (`katapy.agent.v1.Telemetry`), and the host gives them to OpenTelemetry:
a guest has neither its library nor a way to a collector. What is not taken is bounded, and the oldest goes first.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kata_py.ttrpc.trace_context import TraceContext

CALLS = 100  # calls whose spans are kept
SPANS = 200  # spans of one call
ERROR_LENGTH = 500  # characters


class Span(NamedTuple):
    """What took time.

    Attributes:
        id: Eight bytes.
        parent: The id of the span that it is part of: the host's for a call; empty for a part of the boot.
        name: What was done.
        began: When, by the guest's monotonic clock, in nanoseconds.
        ended: When it ended.
        error: What went wrong; empty for a success.
        attributes: What it was done to.
    """

    id: bytes
    parent: bytes
    name: str
    began: int
    ended: int
    error: str
    attributes: dict[str, str]


class _Active(NamedTuple):
    """The span that is under way, and where it and its like go."""

    id: bytes
    spans: list[Span]


_active: ContextVar[_Active | None] = ContextVar("span", default=None)  # of the call that is being answered


class Tracer:
    """Keeps the spans of calls until they are taken.

    Args:
        marks: The names of the boot's steps, each with the moment it began, in monotonic nanoseconds; the last one
            ends them.
    """

    def __init__(self, marks: Sequence[tuple[str, int]] = ()) -> None:
        self._boot = [
            Span(os.urandom(8), b"", name, began, ended, "", {}) for (name, began), (_, ended) in pairwise(marks)
        ]
        self._calls: OrderedDict[bytes, list[Span]] = OrderedDict()

    @contextmanager
    def call(self, name: str, caller: TraceContext | None, **attributes: str) -> Iterator[None]:
        """Trace what is done for a call; nothing if its caller is not traced."""
        if caller is None or not caller.sampled:
            yield
            return
        spans = self._calls.setdefault(caller.span, [])
        while len(self._calls) > CALLS:
            self._calls.popitem(last=False)
        before = _active.get()
        _active.set(_Active(caller.span, spans))
        try:
            with span(name, **attributes):
                yield
        finally:
            _active.set(before)

    def take(self, callers: Iterable[bytes]) -> list[Span]:
        """The spans of these calls, and those of the boot; they are not kept any longer."""
        taken, self._boot = self._boot, []
        for caller in callers:
            taken += self._calls.pop(caller, ())
        return taken


@contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """Trace a part of what is being done; nothing outside of a traced call."""
    around = _active.get()
    if around is None or len(around.spans) >= SPANS:
        yield
        return
    own, began, error = os.urandom(8), time.monotonic_ns(), ""
    _active.set(_Active(own, around.spans))
    try:
        yield
    except BaseException as raised:
        error = (str(raised) or type(raised).__name__)[:ERROR_LENGTH]
        raise
    finally:
        _active.set(around)
        around.spans.append(Span(own, around.id, name, began, time.monotonic_ns(), error, attributes))
