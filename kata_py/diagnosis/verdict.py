"""The verdict on a failure: what failed, at which stage, elapsed against budget, evidence, likely cause, next step."""

from __future__ import annotations

from dataclasses import dataclass

from kata_py.diagnosis.causes import cause_of
from kata_py.sandbox.failure import Failure


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a failure.

    Attributes:
        sandbox: The sandbox's id.
        pod: `namespace/name`, or `-`.
        at: When it failed, in seconds since the epoch.
        what: What failed, in a few words.
        stage: The stage it failed in.
        elapsed: Seconds the stage had run, if known.
        budget: Seconds it was given, if bounded.
        code: The cause's code; docs/diagnosis.md is their index.
        cause: The cause's name.
        meaning: What that means.
        said: What the part that failed said itself.
        evidence: The last lines of console, hypervisor and agent, oldest first.
        journal: What the node's journal has of it, oldest first: of the shim, the manager and the kernel.
        next: What to do next.
    """

    sandbox: str
    pod: str
    at: float
    what: str
    stage: str
    elapsed: float | None
    budget: float | None
    code: str
    cause: str
    meaning: str
    said: str
    evidence: tuple[str, ...]
    journal: tuple[str, ...]
    next: str


def judge(failure: Failure, journal: tuple[str, ...] = ()) -> Verdict:
    """Judge a failure.

    Args:
        failure: What is known of it.
        journal: What the node's journal has of it.
    """
    cause = cause_of(failure)
    return Verdict(
        sandbox=failure.sandbox,
        pod=str(failure.pod),
        at=failure.at,
        what=_what(failure),
        stage=failure.stage,
        elapsed=failure.elapsed,
        budget=failure.budget,
        code=cause.code,
        cause=cause.name,
        meaning=cause.meaning,
        said=failure.cause,
        evidence=failure.evidence,
        journal=journal,
        next=cause.cure,
    )


def _what(failure: Failure) -> str:
    container = f"container {failure.container}"
    match failure.kind:
        case "serve":
            return "its shim"
        case "start":
            return f"the start of {container}"
        case "death":
            return f"a process of {container}" if failure.container else "the running pod died"
        case "loss":
            return "its shim died"
    return f"the creation of {container}" if failure.container != failure.sandbox else "its start"
