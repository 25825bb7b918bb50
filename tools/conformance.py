"""docs/conformance.md: the table of CRI cases and critest's results, rendered from what runs have noted.

`python -m tools.conformance` renders it from build/conformance.json, to which each run of tests/cri adds its results,
and tests/cri/critest-results.json, which `make conformance` writes; `--critest` renders critest's section alone;
`--check` compares the table's cases with those that there are, and critest's section with its results.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import critest_results
from tools.critest_results import CritestError

REPOSITORY = Path(__file__).resolve().parent.parent
CASES = Path("tests/cri")
RESULTS = REPOSITORY / "build" / "conformance.json"
TABLE = REPOSITORY / "docs" / "conformance.md"
DRIVERS = {"namespace": "namespaces", "qemu": "QEMU"}
COLLECT_TIMEOUT = 60.0  # seconds
NOT_RUN = "–"

_HEAD = """\
# What pods do under a real containerd

Made by `python -m tools.conformance` from runs of `tests/cri`; do not edit. Each line is a case: containerd's CRI
plug-in is driven as a kubelet drives it, over this shim. The drivers are `namespaces` (the real agent in namespaces of
the host, for breadth) and `QEMU` (a virtual machine, for proof); “{not_run}” is a case that the driver is not asked.

{passed} of {total} cases pass: {drivers}.
"""


class ConformanceError(Exception):
    """The table cannot be made, or is not what the cases are; says what is missing and what to run."""


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One case.

    Attributes:
        module: The file's name without its ending.
        sentence: What it states.
        driver: Under which driver.
    """

    module: str
    sentence: str
    driver: str

    @classmethod
    def parse(cls, node_id: str) -> Case:
        """The case of a test, by pytest's id: `tests/cri/test_pod.py::test_a_pod_runs[namespace-more]`."""
        path, _, test = node_id.partition("::")
        name, _, bracketed = test.partition("[")
        values = bracketed.removesuffix("]")
        words = [name.removeprefix("test_").replace("_", " ")]
        for driver in DRIVERS:
            rest = re.fullmatch(rf"(?:(.+)-)?{driver}(?:-(.+))?", values)
            if rest is not None:
                words += [f"`{word}`" for word in rest.groups() if word]
                return cls(Path(path).stem, " ".join(words), driver)
        raise ConformanceError(f"{node_id} names no driver, of {', '.join(DRIVERS)}")


def note(results: Mapping[str, str], path: Path = RESULTS) -> None:
    """Add the results of a run to those of earlier ones.

    Args:
        results: Test id to `passed` or `failed`.
        path: Where they are kept.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | dict(results), indent=1, sort_keys=True) + "\n")


def collect() -> list[str]:
    """The ids of all tests there are.

    Raises:
        ConformanceError: pytest cannot collect them.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(CASES)]
    run = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=COLLECT_TIMEOUT
    )  # fmt: skip
    if run.returncode != 0:
        raise ConformanceError(f"pytest cannot collect {CASES}:\n{run.stdout}{run.stderr}")
    return [line for line in run.stdout.splitlines() if line.startswith(f"{CASES}/")]


def render(ids: Iterable[str], results: Mapping[str, str]) -> str:
    """The table's text.

    Args:
        ids: All tests, in the order in which they stand in their files.
        results: Test id to `passed` or `failed`.

    Raises:
        ConformanceError: Some have not been run.
    """
    ids = list(ids)
    missing = [id for id in ids if id not in results]
    if missing:
        raise ConformanceError(f"{len(missing)} cases have not been run, the first is {missing[0]}: pytest tests/cri")
    rows: dict[str, dict[str, dict[str, str]]] = {}
    for id in ids:
        case = Case.parse(id)
        rows.setdefault(case.module, {}).setdefault(case.sentence, {})[case.driver] = results[id]
    passed = [Case.parse(id).driver for id in ids if results[id] == "passed"]
    drivers = ", ".join(f"{passed.count(driver)} under {name}" for driver, name in DRIVERS.items())
    parts = [_HEAD.format(not_run=NOT_RUN, passed=len(passed), total=len(ids), drivers=drivers)]
    for module, cases in rows.items():
        columns = " | ".join(DRIVERS.values())
        parts.append(
            f"\n## {_title(module)}\n\n{_summary(module)}\n\n| Case | {columns} |\n|---|{'---|' * len(DRIVERS)}\n"
        )
        for sentence, by_driver in cases.items():
            cells = " | ".join(by_driver.get(driver, NOT_RUN) for driver in DRIVERS)
            parts.append(f"| {sentence} | {cells} |\n")
    return "".join(parts)


def parse(table: str) -> set[Case]:
    """The cases that a table lists."""
    cases: set[Case] = set()
    module = ""
    for line in _split(table)[0].splitlines():
        if line.startswith("## "):
            module = _module(line.removeprefix("## "))
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == len(DRIVERS) + 1 and cells[0] != "Case":
            pairs = zip(DRIVERS, cells[1:], strict=True)
            cases |= {Case(module, cells[0], driver) for driver, cell in pairs if cell != NOT_RUN}
    return cases


def check(ids: Iterable[str], table: str) -> None:
    """Compare the table's cases with those that there are.

    Raises:
        ConformanceError: They are not the same.
    """
    there, listed = {Case.parse(id) for id in ids}, parse(table)
    if there != listed:
        lines = [f"not in the table: {case}" for case in sorted(there - listed)]
        lines += [f"in the table alone: {case}" for case in sorted(listed - there)]
        what = "\n".join(lines)
        raise ConformanceError(f"{what}\nRun: .venv/bin/pytest tests/cri && .venv/bin/python -m tools.conformance")


def critest() -> str:
    """The section on critest's results.

    Raises:
        CritestError: A reason is missing.
    """
    reasons = critest_results.Reasons.parse(critest_results.REASONS.read_text())
    return critest_results.section(critest_results.recorded(), reasons)


def _split(page: str) -> tuple[str, str]:
    """The page's cases, and its section on critest."""
    cases, heading, section = page.partition("\n" + critest_results.HEADING)
    return cases, heading + section


def _title(module: str) -> str:
    return module.removeprefix("test_").replace("_", " ").capitalize()


def _module(title: str) -> str:
    return "test_" + title.lower().replace(" ", "_")


def _summary(module: str) -> str:
    """The first line of a module's documentation."""
    tree = ast.parse((REPOSITORY / CASES / f"{module}.py").read_text())
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def main(arguments: list[str] | None = None) -> int:
    """Render the table, or check it; 0 when it is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the page with cases and results, do not write")
    parser.add_argument("--critest", action="store_true", help="render critest's section alone")
    options = parser.parse_args(arguments)
    try:
        section = "\n" + critest()
        if options.critest:
            TABLE.write_text(_split(TABLE.read_text())[0] + section)
            return 0
        ids = collect()
        if options.check:
            page = TABLE.read_text() if TABLE.exists() else ""
            check(ids, page)
            if _split(page)[1] != section:
                raise ConformanceError("critest's section is not what its results say: tools.conformance --critest")
        elif not RESULTS.exists():
            raise ConformanceError(f"{RESULTS} is missing: run pytest tests/cri")
        else:
            TABLE.write_text(render(ids, json.loads(RESULTS.read_text())) + section)
    except (ConformanceError, CritestError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
