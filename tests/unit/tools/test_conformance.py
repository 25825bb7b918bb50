"""The table of CRI cases: made of results, and compared with the cases that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import conformance
from tools.conformance import Case, ConformanceError

IDS = [
    "tests/cri/test_pod.py::test_a_pod_runs_is_stopped_and_removed[namespace]",
    "tests/cri/test_pod.py::test_a_pod_runs_is_stopped_and_removed[qemu]",
    "tests/cri/test_container.py::test_the_exit_code_is_that_of_the_process[namespace-126]",
]


@pytest.mark.parametrize(
    ("values", "sentence", "driver"),
    [
        ("qemu", "it runs", "qemu"),
        ("namespace-/a-b", "it runs `/a-b`", "namespace"),
        ("killed-qemu", "it runs `killed`", "qemu"),
        ("killed-namespace-2", "it runs `killed` `2`", "namespace"),
    ],
)
def test_a_case_is_told_by_the_tests_name_and_values(values: str, sentence: str, driver: str) -> None:
    assert Case.parse(f"tests/cri/test_pod.py::test_it_runs[{values}]") == Case("test_pod", sentence, driver)


def test_a_test_without_a_driver_is_refused() -> None:
    with pytest.raises(ConformanceError, match="names no driver"):
        Case.parse("tests/cri/test_pod.py::test_it_runs")


def test_a_table_lists_the_cases_it_was_made_of() -> None:
    table = conformance.render(IDS, dict.fromkeys(IDS, "passed"))
    assert "3 of 3 cases pass: 2 under namespaces, 1 under QEMU." in table
    assert conformance.parse(table) == {Case.parse(id) for id in IDS}
    conformance.check(IDS, table)


def test_a_failure_stands_in_the_table() -> None:
    table = conformance.render(IDS, dict.fromkeys(IDS, "passed") | {IDS[1]: "failed"})
    assert "| a pod runs is stopped and removed | passed | failed |" in table
    assert "2 of 3 cases pass" in table


def test_no_table_is_made_while_a_case_has_not_been_run() -> None:
    with pytest.raises(ConformanceError, match=r"1 cases have not been run, .*126"):
        conformance.render(IDS, dict.fromkeys(IDS[:2], "passed"))


@pytest.mark.parametrize(
    ("there", "said"), [(IDS[:2], "in the table alone"), ([*IDS, IDS[0] + "x"], "names no driver")]
)
def test_a_table_of_other_cases_is_refused(there: list[str], said: str) -> None:
    table = conformance.render(IDS, dict.fromkeys(IDS, "passed"))
    with pytest.raises(ConformanceError, match=said):
        conformance.check(there, table)


def test_a_case_that_the_table_lacks_is_named() -> None:
    table = conformance.render(IDS[:2], dict.fromkeys(IDS, "passed"))
    with pytest.raises(ConformanceError, match=r"not in the table: .*the exit code is that of the process `126`"):
        conformance.check(IDS, table)


def test_a_runs_results_are_added_to_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "build" / "conformance.json"
    conformance.note({IDS[0]: "failed", IDS[1]: "passed"}, path)
    conformance.note({IDS[0]: "passed"}, path)
    assert json.loads(path.read_text()) == {IDS[0]: "passed", IDS[1]: "passed"}
