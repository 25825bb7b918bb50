"""A sandbox's start as a picture: one bar a stage, in inline SVG, whose colours are the page's style's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kata_py.sandbox.timeline import Span, nested

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
    ordered = nested(spans)
    drawn = ordered[: _until_a_gap(ordered)]
    if not drawn:
        return ""
    began, later = drawn[0][0].began, len(ordered) - len(drawn)
    whole = max(max(_end(span, now) for span, _ in drawn) - began, 1)
    height = _ROW * (len(drawn) + 1) + 8
    ticks = [_tick(index, whole, height) for index in range(_TICKS + 1)]
    bars = [_bar(row, span, depth, began, whole, now) for row, (span, depth) in enumerate(drawn)]
    said = f"{len(drawn)} stages in {_length(whole)}" + (f"; {later} later ones are not shown" if later else "")
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>Stages of the start</title><desc>{escape(said)}</desc>{''.join(ticks)}{''.join(bars)}</svg>"
    )


def _until_a_gap(ordered: Sequence[tuple[Span, int]]) -> int:
    """How many stages there are until the first gap."""
    latest = ordered[0][0].began if ordered else 0
    for index, (span, _) in enumerate(ordered):
        if span.began - latest > GAP * 1e9:
            return index
        latest = max(latest, span.ended or span.began)
    return len(ordered)


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
