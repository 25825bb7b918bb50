"""The stages of a sandbox's life with their times, as values and as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One stage of a sandbox's life.

    Attributes:
        name: The stage: `plan`, `virtiofsd`, `kernel`, `agent`, `create` ...
        began: When it began, in nanoseconds of the monotonic clock, which all processes of a host share.
        ended: When it ended; None while it runs, or when its process died in it.
        failed: Whether it ended with an error.
    """

    name: str
    began: int
    ended: int | None = None
    failed: bool = False

    @property
    def milliseconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.ended is None else (self.ended - self.began) / 1e6


def nested(spans: Iterable[Span]) -> list[tuple[Span, int]]:
    """The spans in order of their beginning, each with the number of those that it lies within."""
    found: list[tuple[Span, int]] = []
    around: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.began, -_end(span))):
        while around and _end(around[-1]) < _end(span):
            around.pop()
        found.append((span, len(around)))
        around.append(span)
    return found


def table(spans: Iterable[Span]) -> str:
    """The spans in order of their beginning, each with its offset from the first and its length in ms.

    A stage that lies within another is indented below it.
    """
    ordered = nested(spans)
    if not ordered:
        return "no stage was recorded"
    began = ordered[0][0].began
    lines = [f"{'stage':<28} {'began ms':>10} {'took ms':>10}"]
    for span, depth in ordered:
        took = "running" if span.milliseconds is None else f"{span.milliseconds:.1f}"
        name = "  " * depth + span.name + (" (failed)" if span.failed else "")
        lines.append(f"{name:<28} {(span.began - began) / 1e6:>10.1f} {took:>10}")
    return "\n".join(lines)


def _end(span: Span) -> float:
    return float("inf") if span.ended is None else span.ended
