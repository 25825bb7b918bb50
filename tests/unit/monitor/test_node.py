"""Figures of a node, of the records on it and of the tickets of those that boot."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kata_py.diagnosis.overview import DEAD, UNREADABLE, Sandbox
from kata_py.monitor.exposition import of_shim
from kata_py.monitor.figures import Figures
from kata_py.monitor.node import BUCKETS, Node
from kata_py.monitor.scrape import Scraper
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox.boots import Turns
from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import Span

STAGE = "kata_py_stage_duration_seconds"
NOBODY = Turns(0, 0)


def sandbox(id: str, *spans: Span, state: str = "running", leftovers: int = 0) -> Sandbox:
    return Sandbox(id, state=state, timeline=spans, leftovers=leftovers)


def span(name: str, milliseconds: int, *, began: int = 5, failed: bool = False) -> Span:
    return Span(name, began, began + milliseconds * 1_000_000, failed)


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_a_stage_is_counted_once_however_often_it_is_seen() -> None:
    node = Node()
    first, second = sandbox("a", span("kernel", 900)), sandbox("b", span("kernel", 1200), span("agent", 3))
    node.note([first], NOBODY)
    node.note([first, second], NOBODY)
    node.note([second], NOBODY)
    found = samples(node.text())
    assert found[f"{STAGE}_count", "kernel"] == 2
    assert found[f"{STAGE}_sum", "kernel"] == 2.1
    assert [found[f"{STAGE}_bucket", "kernel", str(bound)] for bound in BUCKETS] == [0, 0, 0, 0, 0, 1, 2, 2, 2]
    assert found[f"{STAGE}_bucket", "agent", "0.004"] == 1


def test_what_failed_or_goes_on_has_no_duration_and_no_container_a_series_of_its_own() -> None:
    node = Node()
    going = Span("machine", 5)
    made = (span("create 0123456789ab", 20), span("create ba9876543210", 20, began=9))
    node.note([sandbox("a", going, span("agent", 9, failed=True), *made)], NOBODY)
    stages = {key[1] for key in samples(node.text()) if key[0] == f"{STAGE}_count"}
    assert stages == {"create"}
    node.note([sandbox("a", replace(going, ended=2_000_000_005), *made)], NOBODY)
    found = samples(node.text())
    assert (found[f"{STAGE}_count", "create"], found[f"{STAGE}_sum", "machine"]) == (2, 2)


def test_a_record_that_could_not_be_read_for_once_is_not_counted_again() -> None:
    node = Node()
    for there in (sandbox("a", span("kernel", 1)), sandbox("a", state=UNREADABLE), sandbox("a", span("kernel", 1))):
        node.note([there], NOBODY)
    assert samples(node.text())[f"{STAGE}_count", "kernel"] == 1


def test_leftovers_and_boots_are_those_of_now() -> None:
    node = Node()
    left = [sandbox("a", state=DEAD, leftovers=3), sandbox("b"), sandbox("c", state=DEAD, leftovers=4)]
    node.note(left, Turns(2, 5))
    found = samples(node.text())
    boots = [found["kata_py_boots", state] for state in ("booting", "queued")]
    assert (found["kata_py_leftovers",], *boots) == (7, 2, 5)
    node.note([], NOBODY)
    assert samples(node.text())["kata_py_leftovers",] == 0


def test_no_shim_may_tell_of_them() -> None:
    assert of_shim("kata_py_leftovers") == ""


async def test_a_scrape_reads_records_and_tickets(tmp_path: Path) -> None:
    record = Record.create("aa", namespace="k8s.io", bundle="/b", root=tmp_path / "sbs")
    with record.span("plan"):
        pass
    content = (record.directory / "record.json").read_text()
    (tmp_path / "sbs" / "bb").mkdir()
    gone = Record.create("cc", namespace="k8s.io", bundle="/b", root=tmp_path / "sbs")
    gone.intend(RemoveFile("/nowhere/of/its"))
    text = (gone.directory / "record.json").read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305')
    assert text != (gone.directory / "record.json").read_text()
    (gone.directory / "record.json").write_text(text)
    (tmp_path / "boots").mkdir()
    (tmp_path / "boots" / f"7-{os.getpid()}").touch()
    figures = Figures()
    await Scraper(figures, roots=(tmp_path / "sbs",), tickets=tmp_path / "boots").all()
    found = samples(figures.text())
    assert found[f"{STAGE}_count", "plan"] == 1
    assert (found["kata_py_leftovers",], found["kata_py_boots", "booting"]) == (1, 1)
    assert (record.directory / "record.json").read_text() == content
