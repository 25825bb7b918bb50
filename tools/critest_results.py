"""How critest came out, the written reasons for what did not pass, and the page's section of both."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REASONS = REPOSITORY / "tests" / "cri" / "critest-reasons.toml"
RESULTS = REPOSITORY / "tests" / "cri" / "critest-results.json"
HEADING = "## critest\n"
BAR = 0.9  # of the specs that can be run

_DRIVERS = {"namespace": "namespaces", "qemu": "QEMU"}
_SUITE = "[k8s.io] "
_PASSED, _FAILED, _SKIPPED, _NOT_RUN = "passed", "failed", "skipped", "not run"
_STATES = {"passed": _PASSED, "skipped": _SKIPPED}  # all other states of ginkgo's are ways to fail


class CritestError(Exception):
    """critest cannot be built or run, or came out otherwise than is written; says what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of critest.

    Attributes:
        version: Of cri-tools.
        date: ISO 8601.
        states: Spec to `passed`, `failed`, `skipped` (by critest itself) or `not run` (it was told so).
    """

    version: str
    date: str
    states: Mapping[str, str]

    @classmethod
    def parse(cls, report: str, version: str) -> Run:
        """Read ginkgo's JSON report. Benchmarks are no validation and are left out."""
        states: dict[str, str] = {}
        for suite in json.loads(report):
            for spec in suite["SpecReports"]:
                if spec["LeafNodeType"] != "It":
                    continue
                name = " ".join([*(spec.get("ContainerHierarchyTexts") or []), spec["LeafNodeText"]])
                if "benchmark" in name:
                    continue
                state = _STATES.get(spec["State"], _FAILED)
                if state == _SKIPPED and not spec.get("Failure", {}).get("Message"):
                    state = _NOT_RUN
                states[name.removeprefix(_SUITE)] = state
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        return cls(version, today, dict(sorted(states.items())))

    def after(self, earlier: Run) -> Run:
        """This run's results, and the earlier run's of what this one left out."""
        kept = {spec: state for spec, state in earlier.states.items() if self.states.get(spec) == _NOT_RUN}
        return Run(self.version, self.date, {**self.states, **kept})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many specs came out how.

    Attributes:
        passed: Passed.
        failed: Failed, and pass with runc.
        failed_as_reference: Failed, as they do with runc on the same machine.
        skipped: Skipped by critest itself.
        not_run: Left out, as critest was told.
    """

    passed: int
    failed: int
    failed_as_reference: int
    skipped: int
    not_run: int

    @property
    def runnable(self) -> int:
        """Those that could pass here."""
        return self.passed + self.failed

    @property
    def share(self) -> float:
        """What part of those passed."""
        return self.passed / self.runnable if self.runnable else 0.0

    def __str__(self) -> str:
        return (
            f"{self.passed} of {self.runnable} runnable specs passed ({self.share:.0%}), {self.failed} failed, "
            f"{self.failed_as_reference} failed as they do with runc, {self.skipped} skipped, {self.not_run} not run"
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """Why specs do not pass.

    Attributes:
        specs: How their names begin.
        because: One sentence.
        run: Whether critest is let run them.
        reference_passes: Whether they pass with runc on the same machine; if not, the bar does not count them.
        drivers: Under which hypervisor drivers.
    """

    specs: str
    because: str
    run: bool
    reference_passes: bool
    drivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reasons:
    """All written reasons; see tests/cri/critest-reasons.toml."""

    reasons: tuple[Reason, ...]

    @classmethod
    def parse(cls, text: str) -> Reasons:
        """Read the file's text."""
        return cls(
            tuple(
                Reason(
                    str(entry["specs"]),
                    str(entry["because"]),
                    bool(entry.get("run", True)),
                    bool(entry.get("reference_passes", True)),
                    tuple(entry.get("drivers", _DRIVERS)),
                )
                for entry in tomllib.loads(text).get("reason", [])
            )
        )

    def not_run(self) -> list[str]:
        """The specs that critest shall leave out, as ginkgo takes them."""
        return [reason.specs for reason in self.reasons if not reason.run]

    def of(self, spec: str, driver: str) -> Reason | None:
        """Why a spec does not pass under a driver, if that is written."""
        for reason in self.reasons:
            if driver in reason.drivers and spec.startswith(reason.specs):
                return reason
        return None

    def counts(self, driver: str, run: Run) -> Counts:
        """How a run's specs came out."""
        states = list(run.states.values())
        both = sum(
            state == _FAILED and (reason := self.of(spec, driver)) is not None and not reason.reference_passes
            for spec, state in run.states.items()
        )
        failed = states.count(_FAILED) - both
        return Counts(states.count(_PASSED), failed, both, states.count(_SKIPPED), states.count(_NOT_RUN))

    def check(self, driver: str, run: Run) -> None:
        """Compare the reasons with a run.

        Raises:
            CritestError: A spec that did not pass has no reason, one that passed has, or too few pass.
        """
        counts = self.counts(driver, run)
        # With --focus more is left out than what must not be run.
        whole = all(self.of(spec, driver) for spec, state in run.states.items() if state == _NOT_RUN)
        wrong = [
            f"{state} without a reason: {spec}"
            for spec, state in run.states.items()
            if state in (_FAILED, _SKIPPED) and self.of(spec, driver) is None
        ]
        wrong += [
            f"passed, though there is a reason why it should not: {spec}"
            for spec, state in run.states.items()
            if state == _PASSED and self.of(spec, driver) is not None
        ]
        if whole and counts.share < BAR:
            wrong.append(f"{counts.passed} of {counts.runnable} pass, the bar is {BAR:.0%}")
        if wrong:
            raise CritestError("\n".join([*wrong, f"Reasons stand in {REASONS.relative_to(REPOSITORY)}"]))


def summary(run: Run, reasons: Reasons, driver: str) -> str:
    """What a terminal is told of a run."""
    lines = []
    for spec, state in run.states.items():
        reason = reasons.of(spec, driver)
        if state == _FAILED:
            lines.append(f"{state}: {spec} ({reason.because if reason else 'no reason is written'})")
    return "\n".join([*lines, f"critest {run.version}, {driver}: {reasons.counts(driver, run)}"])


def record(driver: str, run: Run, path: Path) -> None:
    """Keep a run's results; of what it left out, those of the driver's earlier run with the same version.

    Args:
        driver: The hypervisor driver.
        run: What came out.
        path: The file, JSON.
    """
    known = recorded(path) if path.exists() else {}
    earlier = known.get(driver)
    known[driver] = run.after(earlier) if earlier is not None and earlier.version == run.version else run
    path.write_text(json.dumps({name: asdict(each) for name, each in known.items()}, indent=1, sort_keys=True) + "\n")


def recorded(path: Path = RESULTS) -> dict[str, Run]:
    """The last results of each driver."""
    known = json.loads(path.read_text())
    return {driver: Run(**known[driver]) for driver in _DRIVERS if driver in known}


def section(runs: Mapping[str, Run], reasons: Reasons) -> str:
    """The page's section on critest.

    Args:
        runs: The last run of each driver.
        reasons: Why specs did not pass.

    Raises:
        CritestError: A spec did not pass and no reason is written.
    """
    parts = [HEADING, _INTRODUCTION]
    for driver, run in runs.items():
        parts.append(f"\n### critest under {_DRIVERS[driver]}\n\n")
        parts.append(f"cri-tools {run.version} on {run.date}: {reasons.counts(driver, run)}.\n")
        rows = list(_rows(driver, run, reasons))
        if rows:
            parts += ["\n| Spec | Came out | Reason |\n|---|---|---|\n", *rows]
    return "".join(parts)


_INTRODUCTION = """
`make conformance` runs kubernetes-sigs/cri-tools' [`critest`](https://github.com/kubernetes-sigs/cri-tools) over
Debian's containerd with this shim as the default runtime. Its images are stand-ins made of busybox under the same
names. Every spec that failed, that critest itself skipped or that it was told to leave out stands here with its reason;
a failure without one fails the target.
"""


def _rows(driver: str, run: Run, reasons: Reasons) -> Iterable[str]:
    left_out = 0
    for spec, state in run.states.items():
        if state == _PASSED:
            continue
        reason = reasons.of(spec, driver)
        if state == _NOT_RUN and (reason is None or reason.run):
            left_out += 1
            continue
        if reason is None:
            raise CritestError(f"{spec} {state} under {driver}, and {REASONS.relative_to(REPOSITORY)} has no reason")
        cell = spec.replace("|", r"\|")
        yield f"| {cell} | {state} | {reason.because} |\n"
    if left_out:
        yield f"| {left_out} others | not run | left out by `--focus` |\n"
