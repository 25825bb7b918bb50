from __future__ import annotations

import pytest

from kata_py.ttrpc.trace_context import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"cc-{TRACE}-{SPAN}-03-of-another-version", True),
    ],
)
def test_a_callers_span_is_read(text: str, sampled: bool) -> None:
    context = TraceContext.of({"traceparent": [text]})
    assert context == TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled)
    assert str(context) == f"00-{TRACE}-{SPAN}-{sampled:02x}"


@pytest.mark.parametrize(
    "text",
    [
        "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01\n", f"00-{TRACE}-{SPAN}-01x",
    ],
)  # fmt: skip
def test_what_has_not_the_form_is_no_callers_span(text: str) -> None:
    assert TraceContext.of({"traceparent": [text]}) is None
    assert TraceContext.of({"traceparent": []}) is TraceContext.of({}) is None


def test_a_child_has_its_parents_trace_and_a_span_of_its_own() -> None:
    root = TraceContext.root()
    child = root.child()
    assert (child.trace, child.sampled) == (root.trace, True)
    assert child.span != root.span
    assert (len(root.trace), len(child.span)) == (16, 8)
