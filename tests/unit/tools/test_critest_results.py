"""What is made of critest's report: states, the demand for reasons, the page's section."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import conformance, critest_results
from tools.critest_results import CritestError, Reasons, Run

REASONS = Reasons.parse(
    """
[[reason]]
specs = "Image Manager"
because = "needs a registry"
run = false

[[reason]]
specs = "Security Context NamespaceOption runtime should support HostPID"
because = "a machine of its own"
drivers = ["qemu"]

[[reason]]
specs = "Idempotence"
because = "the manager's"
reference_passes = false
"""
)
HOST_PID = "Security Context NamespaceOption runtime should support HostPID"


def spec(name: str, state: str, message: str = "") -> dict[str, object]:
    """A spec as ginkgo reports it."""
    where, _, leaf = name.rpartition(" / ")
    failure = {"Failure": {"Message": message}} if message else {}
    return {"LeafNodeType": "It", "LeafNodeText": leaf, "State": state} | failure | {
        "ContainerHierarchyTexts": [f"[k8s.io] {where}"]
    }  # fmt: skip


def report(*specs: dict[str, object]) -> str:
    """A report of ginkgo's, which has set-up nodes too."""
    before = {"LeafNodeType": "BeforeSuite", "LeafNodeText": "", "State": "passed", "ContainerHierarchyTexts": None}
    return json.dumps([{"SpecReports": [before, *specs]}])


def run(**states: str) -> Run:
    return Run("v1", "2026-01-01", {name.replace("_", " "): state for name, state in states.items()})


def test_a_report_tells_what_critest_skipped_from_what_it_was_told_to_leave_out() -> None:
    text = report(
        spec("A / works", "passed"),
        spec("A / fails", "failed", "no"),
        spec("A / panics", "panicked", "no"),
        spec("A / lacks AppArmor", "skipped", "AppArmor is disabled on this host"),
        spec("Image Manager / pulls", "skipped"),
        spec("Image / benchmark about images", "skipped"),
    )
    outcome = Run.parse(text, "v1")
    assert outcome.states == {
        "A fails": "failed",
        "A lacks AppArmor": "skipped",
        "A panics": "failed",
        "A works": "passed",
        "Image Manager pulls": "not run",
    }
    assert REASONS.counts("namespace", outcome).runnable == 3


def test_what_is_not_to_be_run_is_handed_to_ginkgo() -> None:
    assert REASONS.not_run() == ["Image Manager"]


@pytest.mark.parametrize("state", ["failed", "skipped"])
def test_a_spec_that_did_not_pass_needs_a_reason(state: str) -> None:
    states = {f"spec {number}": "passed" for number in range(20)} | {HOST_PID: state}
    outcome = Run("v1", "2026-01-01", states)
    REASONS.check("qemu", outcome)
    with pytest.raises(CritestError, match=f"{state} without a reason: {HOST_PID}"):
        REASONS.check("namespace", outcome)
    with pytest.raises(CritestError, match=HOST_PID):
        critest_results.section({"namespace": outcome}, REASONS)


def test_a_reason_that_no_longer_holds_is_refused() -> None:
    with pytest.raises(CritestError, match=f"passed, though .*{HOST_PID}"):
        REASONS.check("qemu", Run("v1", "2026-01-01", {HOST_PID: "passed"}))


def test_reasons_do_not_lower_the_bar() -> None:
    outcome = Run("v1", "2026-01-01", {HOST_PID: "failed", "spec": "passed"})
    with pytest.raises(CritestError, match="1 of 2 pass, the bar is 90%"):
        REASONS.check("qemu", outcome)


def test_what_fails_with_the_reference_too_is_listed_and_not_counted() -> None:
    outcome = Run("v1", "2026-01-01", {"Idempotence stop": "failed", "spec": "passed"})
    REASONS.check("qemu", outcome)
    section = critest_results.section({"qemu": outcome}, REASONS)
    assert "1 of 1 runnable specs passed (100%), 0 failed, 1 failed as they do with runc" in section
    assert "| Idempotence stop | failed | the manager's |" in section


def test_the_section_has_the_counts_and_each_reason() -> None:
    outcome = Run("v1", "2026-01-01", {"Image Manager pulls": "not run", HOST_PID: "failed", "spec": "passed"})
    section = critest_results.section({"qemu": outcome}, REASONS)
    assert "1 of 2 runnable specs passed (50%), 1 failed, 0 failed as they do with runc" in section
    assert f"| {HOST_PID} | failed | a machine of its own |" in section
    assert "| Image Manager pulls | not run | needs a registry |" in section


def test_a_focused_run_says_how_many_it_left_out() -> None:
    states = {"one": "passed", "two": "not run", HOST_PID: "not run", "Image Manager a|b": "not run"}
    section = critest_results.section({"qemu": Run("v1", "2026-01-01", states)}, REASONS)
    assert "| 2 others | not run |" in section
    assert HOST_PID not in section
    assert r"| Image Manager a\|b | not run | needs a registry |" in section


def test_a_drivers_last_run_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    critest_results.record("qemu", run(one="failed"), path)
    critest_results.record("namespace", run(one="passed"), path)
    critest_results.record("qemu", run(one="passed"), path)
    assert critest_results.recorded(path) == {"namespace": run(one="passed"), "qemu": run(one="passed")}


def test_a_focused_run_replaces_the_results_of_what_it_ran_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    critest_results.record("qemu", run(one="failed", two="passed"), path)
    critest_results.record("qemu", run(one="passed", two="not run"), path)
    assert critest_results.recorded(path)["qemu"] == run(one="passed", two="passed")


def test_results_of_another_version_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    critest_results.record("qemu", Run("v0", "2025-01-01", {"one": "passed"}), path)
    critest_results.record("qemu", run(one="not run"), path)
    assert critest_results.recorded(path)["qemu"] == run(one="not run")


def test_the_rows_of_critest_are_no_cases() -> None:
    ids = ["tests/cri/test_pod.py::test_a_pod_runs[qemu]"]
    table = conformance.render(ids, {ids[0]: "passed"})
    section = critest_results.section({"qemu": run(one="passed", two="not run")}, REASONS)
    assert conformance.parse(table + "\n" + section) == conformance.parse(table)
