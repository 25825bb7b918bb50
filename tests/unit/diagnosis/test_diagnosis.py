"""Causes, verdicts and garbage, from files that are written here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kata_py.diagnosis import evidence, garbage
from kata_py.diagnosis.causes import CAUSES
from kata_py.diagnosis.errors import NoSuchPod
from kata_py.diagnosis.verdict import judge
from kata_py.sandbox import failure
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.timeline import Span
from tools import diagnosis

FAILED = Failure(
    "abc123", "abc123", "k8s.io", Pod("shop", "web"), 5.0, "create", "agent", 60.1, 60.0, "no answer",
    ("StageFailed", "DeadlineExceeded"), timeline=(Span("agent", 1, 2, failed=True),),
)  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(records=tmp_path / "sbs", failures=tmp_path / "failures")


def dead(paths: HostPaths, id: str, bundle: Path) -> None:
    record = Record.create(id, namespace="k8s.io", bundle=bundle, root=paths.records)
    file = record.directory / "record.json"
    content = json.loads(file.read_text())
    content["shim"] = {"pid": 1, "start_time": -1}
    content["undo"] = [{"kind": "remove-file", "path": str(paths.records / "left")}]
    file.write_text(json.dumps(content))


def test_a_verdict_tells_stage_time_cause_and_next_step() -> None:
    verdict = judge(FAILED)
    assert (verdict.stage, verdict.elapsed, verdict.budget) == ("agent", 60.1, 60.0)
    assert (verdict.code, verdict.cause) == ("KATA-A01", "agent-silent")
    assert "dial_timeout" in verdict.next
    assert verdict.pod == "shop/web"


def test_what_fits_no_cause_is_said_to_be_unknown() -> None:
    assert judge(replace(FAILED, stage="hooks", errors=("StageFailed",), cause="?")).cause == "unknown"


def test_the_container_that_failed_in_a_pod_is_named() -> None:
    assert "container c1" in judge(replace(FAILED, container="c1")).what


def test_a_code_has_one_name_meaning_and_cure() -> None:
    assert len({cause.code for cause in CAUSES}) == len({(c.code, c.name, c.meaning, c.cure) for c in CAUSES})
    assert len({cause.name for cause in CAUSES}) == len({cause.code for cause in CAUSES})


@pytest.mark.parametrize("name", ["abc", "abc123", "web", "shop/web"])
def test_a_pod_is_found_by_id_or_name(paths: HostPaths, name: str) -> None:
    failure.keep(FAILED, paths.failures)
    assert [each.sandbox for each in evidence.failures_of(name, paths)] == ["abc123"]
    assert evidence.timeline_of(name, paths) == FAILED.timeline


def test_another_pod_is_not_found(paths: HostPaths) -> None:
    failure.keep(FAILED, paths.failures)
    with pytest.raises(NoSuchPod, match="'other/web'"):
        evidence.timeline_of("other/web", paths)


def test_garbage_is_what_has_neither_shim_nor_bundle_and_is_removed(paths: HostPaths) -> None:
    Record.create("alive", namespace="k8s.io", bundle="/no/bundle", root=paths.records)
    dead(paths, "managed", paths.records)
    dead(paths, "forsaken", paths.records / "no-bundle")
    (paths.records / "left").touch()
    (mine,) = garbage.forsaken(paths)
    assert (mine.id, len(mine.entries)) == ("forsaken", 1)
    assert (paths.records / "left").exists()
    gone, left = garbage.collect(paths)
    assert [each.id for each in gone] == ["forsaken"]
    assert left == []
    assert not (paths.records / "left").exists()
    assert sorted(path.name for path in paths.records.iterdir()) == ["alive", "managed"]


def test_the_index_in_the_document_is_current() -> None:
    text = diagnosis.DOCS.read_text()
    assert diagnosis.with_index(text) == text
    assert all(asdict(cause)["code"] in text for cause in CAUSES)
