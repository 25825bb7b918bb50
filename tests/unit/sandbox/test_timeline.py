from __future__ import annotations

from kata_py.sandbox.timeline import Span, table

MS = 1_000_000


def test_the_table_gives_offset_and_length_in_milliseconds() -> None:
    assert table([Span("plan", 5 * MS, 7 * MS)]).splitlines()[1].split() == ["plan", "0.0", "2.0"]


def test_a_stage_within_another_is_indented_below_it() -> None:
    spans = [Span("agent", 4 * MS, 9 * MS), Span("request", 0, 10 * MS), Span("qemu", 1 * MS, 3 * MS)]
    names = [line[:28].rstrip() for line in table(spans).splitlines()[1:]]
    assert names == ["request", "  qemu", "  agent"]


def test_a_failed_stage_and_a_running_one_say_so() -> None:
    lines = table([Span("kernel", 0, None), Span("qemu", 1, 2, failed=True)]).splitlines()
    assert lines[1].endswith("running")
    assert "qemu (failed)" in lines[2]


def test_no_stages_make_no_table() -> None:
    assert table([]) == "no stage was recorded"


def test_a_running_span_has_no_length() -> None:
    assert Span("x", 1).milliseconds is None
