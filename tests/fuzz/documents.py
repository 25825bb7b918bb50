"""Values as JSON and TOML have them, with the odd ones among them."""

from __future__ import annotations

import json

from hypothesis import strategies as st

ODD_TEXTS = st.sampled_from([
    "", "\x00", "\ud800", "/", "//", "..", "/proc/self/environ", "\n", "a" * 300, "-1", "1e400", "nan", "inf", "true",
    "9" * 30, "١", "[]", "{}", "[1, ", '"', "%s", "${x}", "/dev/../dev/null",
])  # fmt: skip
texts = ODD_TEXTS | st.text(max_size=12)
numbers = st.sampled_from([0, -1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, 10**30]) | st.integers()
scalars = st.none() | st.booleans() | numbers | texts | st.floats()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


deep = st.integers(1, 1200).map(nested)


@st.composite
def replaced(draw: st.DrawFn, document: object) -> object:
    """A document with values of it replaced, at any depth."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    if isinstance(document, dict):
        return {key: draw(replaced(value)) for key, value in document.items() if draw(st.integers(0, 19))}
    if isinstance(document, list):
        return [draw(replaced(item)) for item in document]
    return document


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()
