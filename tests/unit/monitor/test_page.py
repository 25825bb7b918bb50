"""The page as text, and the picture in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from kata_py.diagnosis.overview import DEAD, Sandbox
from kata_py.diagnosis.quantity import duration, size
from kata_py.monitor.page import page
from kata_py.monitor.timeline_picture import picture
from kata_py.sandbox.failure import Pod
from kata_py.sandbox.timeline import Span

MS = 10**6
START = (Span("plan", 0, 10 * MS), Span("machine", 10 * MS, 900 * MS), Span("kernel", 100 * MS, 500 * MS))
VOID = {"meta", "br", "link"}


class Balance(HTMLParser):
    """Sees to it that what is opened is closed, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


SANDBOX = Sandbox(
    "ab" * 32, Pod("shop", "web"), state="running", age=93.0, timeline=START,
    memory={"VM": 200 << 20, "QEMU": 50 << 20, "shim": 70 << 20},
)  # fmt: skip


def shown(*sandboxes: Sandbox) -> str:
    text = page(sandboxes, "node-1", now=1000 * MS, clock=0.0)
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "script" not in parser.seen
    return text


def test_a_sandbox_is_shown_with_state_age_and_memory_by_part() -> None:
    text = shown(SANDBOX)
    row = re.search(r"<tbody><tr>(.*?)</tr>", text)
    assert row is not None
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row[1])]
    assert cells == ["shop/web", "running", "1 min 33 s", "200 MiB", "50 MiB", "–", "70 MiB", "320 MiB"]
    assert "1970-01-01 00:00:00 UTC" in text


def test_what_comes_from_a_pod_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>\"onload=x'"
    text = shown(replace(SANDBOX, pod=Pod(evil, evil), id=evil, timeline=(Span(evil, 0, MS),), state=evil))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert '"onload' not in text


def test_what_was_left_behind_tells_what_to_do() -> None:
    text = shown(replace(SANDBOX, state=DEAD, leftovers=3, memory={}, pod=Pod()))
    assert "left 3 things behind" in text
    assert "kata-ctl gc --dry-run" in text
    assert ">abababababab<" in text


def test_a_node_without_sandboxes_says_so() -> None:
    assert "No sandbox runs on this node." in shown()


def test_a_stage_within_another_is_indented_and_its_bar_lies_within() -> None:
    drawn = re.findall(
        r'<text x="(\d+)" y="\d+">(\w+)</text><rect x="([\d.]+)" y="\d+" width="([\d.]+)"', picture(START, 0)
    )
    assert [(name, int(x)) for x, name, _, _ in drawn] == [("plan", 0), ("machine", 0), ("kernel", 12)]
    (_, _, outer, wide), (_, _, inner, narrow) = drawn[1:]
    assert float(outer) < float(inner)
    assert float(inner) + float(narrow) < float(outer) + float(wide)


def test_what_failed_or_still_runs_is_told_by_a_word() -> None:
    drawing = picture((Span("machine", 0, 500 * MS, failed=True), Span("agent", 600 * MS)), 1000 * MS)
    assert "500 ms failed" in drawing
    assert "400 ms so far" in drawing


def test_stages_long_after_the_start_are_counted_and_not_drawn() -> None:
    hour = 3600 * 10**9
    drawing = picture((*START, Span("create", hour, hour + MS)), 2 * hour)
    assert "create" not in drawing
    assert "3 stages in 900 ms; 1 later ones are not shown" in drawing
    assert picture((), 0) == ""


@pytest.mark.parametrize(
    ("seconds", "told"), [(3.2, "3 s"), (93, "1 min 33 s"), (7260, "2 h 1 min"), (266400, "3 d 2 h")]
)
def test_an_age_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("amount", "told"), [(0, "0 B"), (1023, "1023 B"), (3 << 19, "1.5 MiB"), (5 << 40, "5120 GiB")]
)
def test_a_size_is_told_in_powers_of_1024(amount: int, told: str) -> None:
    assert size(amount) == told
