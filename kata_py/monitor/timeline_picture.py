"""A sandbox's start as a picture: one bar a stage, in inline SVG, whose colours are the page's style's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kata_py.sandbox.timeline import Span

GAP = 60.0  # seconds without any stage that end a start: what comes later would make its bars invisible

_WIDTH, _ROW, _BAR = 720, 20, 12  # of the drawing; the page scales it
_LABELS, _TIMES = 170, 90  # columns left and right of the bars
_INDENT = 12
_TICKS = 4


def picture(spans: Sequence[Span], now: int) -> str:
    """The stages of a start, each with its name and its length; empty where none is on record.

    A stage within another is indented below it. One that failed is told by its word and its hatching as well as by its
    colour, and one that still runs by its word and its open end.

    Args:
        spans: The stages.
        now: Nanoseconds of the clock that they are told by, for those that still run.
    """
    drawn, later = _start(spans)
    if not drawn:
        return ""
    began = drawn[0].began
    whole = max(max(_end(span, now) for span in drawn) - began, 1)
    height = _ROW * (len(drawn) + 1) + 8
    ticks = [_tick(index, whole, height) for index in range(_TICKS + 1)]
    bars = [_bar(row, span, depth, began, whole, now) for row, (span, depth) in enumerate(_nested(drawn, now))]
    said = f"{len(drawn)} stages in {_length(whole)}" + (f"; {later} later ones are not shown" if later else "")
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>Stages of the start</title><desc>{escape(said)}</desc>{''.join(ticks)}{''.join(bars)}</svg>"
    )


def _start(spans: Sequence[Span]) -> tuple[list[Span], int]:
    """The stages until the first gap, and how many come after it."""
    ordered = sorted(spans, key=lambda span: (span.began, -(span.ended or 0)))
    latest = ordered[0].began if ordered else 0
    for index, span in enumerate(ordered):
        if span.began - latest > GAP * 1e9:
            return ordered[:index], len(ordered) - index
        latest = max(latest, span.ended or span.began)
    return ordered, 0


def _nested(spans: Sequence[Span], now: int) -> list[tuple[Span, int]]:
    nested: list[tuple[Span, int]] = []
    around: list[int] = []
    for span in spans:
        while around and around[-1] < _end(span, now):
            around.pop()
        nested.append((span, len(around)))
        around.append(_end(span, now))
    return nested


def _bar(row: int, span: Span, depth: int, began: int, whole: int, now: int) -> str:
    left, width = _x(span.began - began, whole), _x(_end(span, now) - began, whole)
    y = _ROW * row + 4
    kind = "failed" if span.failed else "running" if span.ended is None else f"depth{min(depth, 2)}"
    length = _length(_end(span, now) - span.began)
    word = {"failed": f"{length} failed", "running": f"{length} so far"}.get(kind, length)
    return (
        f'<g class="stage {kind}"><title>{escape(span.name)}: {word}</title>'
        f'<text x="{_INDENT * min(depth, 4)}" y="{y + 10}">{escape(span.name)}</text>'
        f'<rect x="{left:.1f}" y="{y}" width="{max(width - left, 1.5):.1f}" height="{_BAR}" rx="2"/>'
        f'<text class="time" x="{_WIDTH}" y="{y + 10}" text-anchor="end">{word}</text></g>'
    )


def _tick(index: int, whole: int, height: int) -> str:
    at = _x(whole * index // _TICKS, whole)
    anchor = {0: "start", _TICKS: "end"}.get(index, "middle")
    told = _length(whole * index // _TICKS)
    return (
        f'<line class="tick" x1="{at:.1f}" y1="0" x2="{at:.1f}" y2="{height - _ROW}"/>'
        f'<text class="tick" x="{at:.1f}" y="{height - 6}" text-anchor="{anchor}">{told}</text>'
    )


def _x(offset: int, whole: int) -> float:
    return _LABELS + (_WIDTH - _LABELS - _TIMES) * offset / whole


def _end(span: Span, now: int) -> int:
    return max(now, span.began) if span.ended is None else span.ended


def _length(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds / 1e3:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"
