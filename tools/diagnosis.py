"""Measure `kata-ctl explain`: inject each fault of tests/integration/test_explain.py, print the table and the score.

With `--docs`, write the index of docs/diagnosis.md instead.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from kata_py.diagnosis.causes import CAUSES
from tests.integration.test_explain import FAULTS

DOCS = Path("docs/diagnosis.md")
BEGIN, END = "<!-- index: python -m tools.diagnosis --docs -->", "<!-- end of index -->"
BAR = 0.9
TESTS = "tests/integration/test_explain.py"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a fault: what was written down of stage and cause, what was told, and whether they agree."""

    fault: str
    expected: str = "-"
    got: str = "-"
    right: bool = False


def index() -> str:
    """The index of all causes, by code, in Markdown."""
    rows = {
        cause.code: "| " + " | ".join(text.replace("|", r"\|") for text in cells) + " |"
        for cause in CAUSES
        for cells in [(cause.code, cause.name, cause.meaning, cause.cure)]
    }
    return "\n".join(["| Code | Cause | Meaning | Cure |", "|---|---|---|---|", *(rows[code] for code in sorted(rows))])


def with_index(text: str) -> str:
    """A document with the index of now."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{index()}\n{END}", text)


def measure() -> int:
    """Inject all faults, print what was expected and got, and the score; the exit status says if it is high enough."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        # The other family of reports has no place for what a test notes, and pytest warns of it.
        options = ["-q", "-k", "explained", f"--junitxml={report}", "-o", "junit_family=xunit1"]
        command = ["tools/room", sys.executable, "-m", "pytest", *options, TESTS]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        told = judged(report)
    right = sum(each.right for each in told)
    print(f"{'fault':<24} {'expected':<32} {'got':<32} right")
    for each in told:
        print(f"{each.fault:<24} {each.expected:<32} {each.got:<32} {'yes' if each.right else 'NO'}")
    score = right / len(told)
    print(f"score: {right} of {len(told)}, {score:.0%}; bar {BAR:.0%}")
    return 0 if score >= BAR else 1


def judged(report: Path) -> list[Result]:
    """What became of every fault, by pytest's report: one that was skipped, or never came to run, is not named right.

    Args:
        report: The report, in JUnit's form; there may be none.
    """
    cases = ET.parse(report).getroot().iter("testcase") if report.exists() else iter(())
    by_name = {(case.get("name") or "").partition("[")[2].rstrip("]"): case for case in cases}
    return [_result(name, by_name.get(name)) for name in (fault.name.replace(" ", "-") for _, fault in FAULTS)]


def _result(name: str, case: ET.Element | None) -> Result:
    if case is None:
        return Result(name, got="did not run")
    noted = {each.get("name"): each.get("value") or "-" for each in case.iter("property")}
    bad = [outcome for outcome in ("failure", "error", "skipped") if case.find(outcome) is not None]
    return Result(name, noted.get("expected", "-"), noted.get("got", bad[0] if bad else "-"), right=not bad)


def main() -> int:
    """Measure, or write the index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help=f"write the index of {DOCS}")
    if not parser.parse_args().docs:
        return measure()
    DOCS.write_text(with_index(DOCS.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
