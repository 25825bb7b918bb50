"""The measure of `kata-ctl explain`: what counts as right, and that the document tells it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.test_explain import FAULTS
from tools import diagnosis

NAMES = [fault.name.replace(" ", "-") for _, fault in FAULTS]


def written(path: Path, names: list[str], outcomes: dict[str, str]) -> Path:
    suite = ET.Element("testsuite")
    for name in names:
        case = ET.SubElement(suite, "testcase", name=f"test_a_fault_is_explained[{name}]")
        if name in outcomes:
            ET.SubElement(case, outcomes[name])
    ET.ElementTree(suite).write(path)
    return path


def test_faults_that_fail_are_skipped_or_do_not_run_are_not_named_right(tmp_path: Path) -> None:
    outcomes = {NAMES[0]: "failure", NAMES[1]: "error", NAMES[2]: "skipped"}
    told = diagnosis.judged(written(tmp_path / "report.xml", NAMES[:-1], outcomes))
    assert [each.fault for each in told] == NAMES
    wrong = {each.fault: each.got for each in told if not each.right}
    assert wrong == outcomes | {NAMES[-1]: "did not run"}


def test_a_run_that_left_no_report_has_named_nothing_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(diagnosis.subprocess, "run", lambda *words, **options: None)
    assert diagnosis.measure() == 1
    assert f"score: 0 of {len(FAULTS)}, 0%" in capsys.readouterr().out


def test_the_document_tells_how_many_faults_there_are() -> None:
    [(right, of)] = re.findall(r"^Now (\d+) of (\d+) are named right\.$", diagnosis.DOCS.read_text(), re.MULTILINE)
    assert (int(of), int(right) <= int(of)) == (len(FAULTS), True)
    assert Counter(NAMES).most_common(1)[0][1] == 1, "pytest would call two of one name by others"
