"""What can go wrong with a sandbox, by meaning. The Task service alone turns a meaning into a status code.

SandboxError              anything else
├── InvalidArgument       the request cannot be carried out as it stands
├── NotFound              no such task, exec or process
├── AlreadyExists         the id is taken
├── FailedPrecondition    not in this state
├── Unimplemented         asked for something we do not do, or not yet
├── Unavailable           the machine or its agent is gone
├── StreamCut             bytes of a stream may be missing, or doubled
├── StageFailed           a stage of the sandbox's start failed
└── DeadlineExceeded      a bound on a wait ran out
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_py.sandbox.timeline import Span

TOLD_LINES = 10  # of evidence in an error's text; all of it is kept


class SandboxError(Exception):
    """A sandbox, container or process could not do what was asked."""


class InvalidArgument(SandboxError):
    """The request cannot be carried out as it stands: an id, a spec, a path or a mount of unknown form."""


class NotFound(SandboxError):
    """No such task, exec or process."""


class AlreadyExists(SandboxError):
    """The id is taken."""


class FailedPrecondition(SandboxError):
    """The process or sandbox is not in a state that allows it."""


class Unimplemented(SandboxError):
    """Something this shim, or the agent in the guest, does not do."""


class Unavailable(SandboxError):
    """The virtual machine or its agent is gone."""


class StreamCut(SandboxError):
    """The connection was lost while bytes of a stream were under way; the agent is there still, and does not count."""


class DeadlineExceeded(SandboxError):
    """A bounded wait ran out; the message says what for."""


class StageFailed(SandboxError):
    """A stage of the sandbox's start failed; everything made up to then was undone.

    Attributes:
        stage: The stage's name in the timeline.
        elapsed: Seconds the stage had run.
        budget: Seconds it was given, or None when it has no bound of its own.
        cause: What happened, in words.
        evidence: The last lines of the guest's console and the hypervisor's output, oldest first.
        context: Further lines, of the console and the agent's log, that are kept and not told: the cause says it all.
        timeline: All stages up to then, once the sandbox is undone: its record is gone with it.
    """

    def __init__(
        self, stage: str, cause: str, *, elapsed: float, budget: float | None, evidence: tuple[str, ...] = ()
    ) -> None:
        super().__init__(stage, cause)
        self.stage = stage
        self.cause = cause
        self.elapsed = elapsed
        self.budget = budget
        self.evidence = evidence
        self.context: tuple[str, ...] = ()
        self.timeline: tuple[Span, ...] = ()

    def __str__(self) -> str:
        spent = f"{self.elapsed:.1f} s" + (f" of {self.budget:g} s" if self.budget is not None else "")
        text = f"{self.stage} failed after {spent}: {self.cause}"
        if self.evidence:
            text += "; last lines: " + " | ".join(self.evidence[-TOLD_LINES:])
        return text
