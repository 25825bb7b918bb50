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
from pathlib import Path

from kata_py.diagnosis.causes import CAUSES

DOCS = Path("docs/diagnosis.md")
BEGIN, END = "<!-- index: python -m tools.diagnosis --docs -->", "<!-- end of index -->"
BAR = 0.9
TESTS = "tests/integration/test_explain.py"


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
        cases = list(ET.parse(report).getroot().iter("testcase"))
    right = 0
    print(f"{'fault':<24} {'expected':<32} {'got':<32} right")
    for case in cases:
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        passed = case.find("failure") is None and case.find("error") is None
        right += passed
        name = (case.get("name") or "").partition("[")[2].rstrip("]")
        said = [str(properties.get(key, "-")) for key in ("expected", "got")]
        print(f"{name:<24} {said[0]:<32} {said[1]:<32} {'yes' if passed else 'NO'}")
    score = right / len(cases) if cases else 0.0
    print(f"score: {right} of {len(cases)}, {score:.0%}; bar {BAR:.0%}")
    return 0 if score >= BAR else 1


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
