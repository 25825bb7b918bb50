"""The monitor's page for people: a node's sandboxes, without a script and without anything from elsewhere. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from kata_py.diagnosis.overview import DEAD, PARTS, Sandbox
from kata_py.diagnosis.quantity import duration, size
from kata_py.monitor.style import STYLE
from kata_py.monitor.timeline_picture import picture

CONTENT_TYPE = "text/html; charset=utf-8"
FIELDS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}


def page(sandboxes: Sequence[Sandbox], node: str, *, now: int, clock: float) -> str:
    """The page, as HTML.

    Whatever comes from pods, or from the files of a node, is text in it and nothing else.

    Args:
        sandboxes: In the order in which they are shown.
        node: The node's name.
        now: Nanoseconds of the monotonic clock, which the stages are told by.
        clock: Seconds since 1970, for the reader.
    """
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock))
    body = _table(sandboxes) + "".join(_article(each, now) for each in sandboxes) if sandboxes else _EMPTY
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{len(sandboxes)} sandboxes on {escape(node)}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>Sandboxes on {escape(node)}</h1><p class="soft">As of {told}; load the page again for newer.</p>'
        f"{_sums(sandboxes)}</header><main>{body}</main>"
        '<footer>kata-monitor · <a href="/metrics">/metrics</a> · <a href="/sandboxes">/sandboxes</a></footer>'
        "</body></html>\n"
    )


_EMPTY = (
    '<p class="scroll empty">No sandbox runs on this node.<br>'
    '<span class="soft">A pod gets one by <code>runtimeClassName: kata</code>.</span></p>'
)


def _sums(sandboxes: Sequence[Sandbox]) -> str:
    states = Counter(each.state for each in sandboxes)
    memory = sum(sum(each.memory.values()) for each in sandboxes)
    items = [(str(len(sandboxes)), "sandboxes"), *((str(count), state) for state, count in sorted(states.items()))]
    items.append((size(memory), "resident memory"))
    return '<ul class="sums">' + "".join(f"<li><strong>{n}</strong> {escape(what)}</li>" for n, what in items) + "</ul>"


def _table(sandboxes: Sequence[Sandbox]) -> str:
    head = "".join(f'<th scope="col" class="number">{part}</th>' for part in (*PARTS, "all"))
    return (
        '<div class="scroll"><table><caption>All sandboxes, and their resident memory</caption><thead><tr>'
        f'<th scope="col">Pod</th><th scope="col">State</th><th scope="col" class="number">Age</th>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, sandboxes))}</tbody></table></div>"
    )


def _row(sandbox: Sandbox) -> str:
    parts = [size(sandbox.memory[part]) if part in sandbox.memory else "–" for part in PARTS]
    parts.append(size(sum(sandbox.memory.values())) if sandbox.memory else "–")
    figures = "".join(f'<td class="number">{part}</td>' for part in parts)
    return (
        f'<tr><th scope="row"><a href="#{escape(sandbox.id)}">{_name(sandbox)}</a></th><td>{_state(sandbox)}</td>'
        f'<td class="number">{_age(sandbox)}</td>{figures}</tr>'
    )


def _article(sandbox: Sandbox, now: int) -> str:
    drawing = picture(sandbox.timeline, now) or '<p class="soft">No stage of its start is on record.</p>'
    left = ""
    if sandbox.leftovers:
        left = (
            f"<p>Its shim is gone and left {sandbox.leftovers} things behind. "
            "See <code>kata-ctl gc --dry-run</code>.</p>"
        )
    return (
        f'<article id="{escape(sandbox.id)}"><header><h2>{_name(sandbox)}</h2>{_state(sandbox)}'
        f'<span class="soft">{_age(sandbox)}</span><code class="soft">{escape(sandbox.id[:12])}</code></header>'
        f"{left}{_memory(sandbox)}{drawing}</article>"
    )


def _memory(sandbox: Sandbox) -> str:
    whole = sum(sandbox.memory.values())
    if not whole:
        return ""
    bars = "".join(
        f'<span class="part-{part}" style="flex: {amount / whole:.4f}"></span>'
        for part, amount in sandbox.memory.items()
    )
    key = "".join(
        f'<div><dt class="key-{part}">{part}</dt><dd>{size(amount)}</dd></div>'
        for part, amount in sandbox.memory.items()
    )
    return f'<div class="memory" aria-hidden="true">{bars}</div><dl class="key">{key}</dl>'


def _name(sandbox: Sandbox) -> str:
    return escape(str(sandbox.pod) if sandbox.pod.name else sandbox.id[:12])


def _state(sandbox: Sandbox) -> str:
    kind = "lost" if sandbox.state == DEAD else sandbox.state.split()[0]
    return f'<span class="state {escape(kind)}">{escape(sandbox.state)}</span>'


def _age(sandbox: Sandbox) -> str:
    return "–" if sandbox.age is None else duration(sandbox.age)
