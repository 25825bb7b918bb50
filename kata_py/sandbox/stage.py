"""The stages of a sandbox's start: each timed, and each failure told with its stage and what is known of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from google.protobuf.message import DecodeError

from kata_py.hypervisor.api import HypervisorError, Vm
from kata_py.resource.journal import Journal
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import DeadlineExceeded, SandboxError, StageFailed, Unavailable, Unimplemented
from kata_py.sandbox.hooks import HookFailed
from kata_py.ttrpc.errors import StatusError

DEATH_TIMEOUT = 3.0  # seconds that a lost connection waits to learn of its machine's end; QEMU's own takes one or two
VERSION_TIMEOUT = 2.0  # seconds
VERSION_LENGTH = 100  # characters; the guest is not trusted
EVIDENCE_LINES = 40  # what matters may stand above a panic's trace


class Stages:
    """Enters stages.

    Args:
        journal: Where they are timed.

    Attributes:
        vm: The machine, once there is one.
        agent: The agent in it, once it has answered.
        log: The last lines of the agent's log, oldest first, where it comes over a way of its own.
    """

    def __init__(self, journal: Journal) -> None:
        self.vm: Vm | None = None
        self.agent: Agent | None = None
        self.log: Collection[str] = ()
        self._journal = journal

    @asynccontextmanager
    async def stage(self, name: str, budget: float | None = None) -> AsyncIterator[None]:
        """One stage.

        Args:
            name: Its name in the timeline.
            budget: Seconds it is given by what it waits for, for the error.

        Raises:
            StageFailed: It failed, with the error as its cause.
        """
        began = time.monotonic()
        try:
            with self._journal.span(name):
                yield
        except Exception as error:
            raise await self.failed(name, error, began, budget) from error

    async def failed(self, name: str, error: Exception, began: float, budget: float | None = None) -> StageFailed:
        """What is to be told of a stage's failure.

        Args:
            name: The stage's name.
            error: Its cause.
            began: When it began, in seconds of the monotonic clock.
            budget: As for `stage`.
        """
        elapsed = time.monotonic() - began
        stage, cause, evidence = await self._failure(name, error)
        if isinstance(error, HypervisorError | HookFailed):
            budget = error.budget or budget
        failed = StageFailed(stage, cause, elapsed=elapsed, budget=budget, evidence=evidence)
        if self.vm is not None and not evidence:
            failed.context = self.vm.console_tail()[-EVIDENCE_LINES:]
        failed.context += tuple(self.log)
        return failed

    async def _failure(self, name: str, error: Exception) -> tuple[str, str, tuple[str, ...]]:
        if isinstance(error, HypervisorError):
            cause = f"{error.cause} ({error.hint})" if error.hint else error.cause
            return error.stage, cause, error.evidence[-EVIDENCE_LINES:]
        if self.vm is None:
            return name, str(error), ()
        if isinstance(error, Unavailable):
            return name, *(await last_words(self.vm, str(error)))
        if isinstance(error, DeadlineExceeded):
            return name, str(error), self.vm.console_tail()[-EVIDENCE_LINES:]
        if self.agent is not None and speaks_otherwise(error):
            return name, f"{error}; {await _version(self.agent)}", ()
        return name, str(error), ()  # of the host's or told by the agent itself: the console has nothing to add


def speaks_otherwise(error: Exception) -> bool:
    """Whether an agent does not know a call of ours, or answers it in another form."""
    return isinstance(error.__cause__, DecodeError) or (
        isinstance(error, Unimplemented) and isinstance(error.__cause__, StatusError)
    )


async def _version(agent: Agent) -> str:
    try:
        return f"the agent is of version {(await agent.version(VERSION_TIMEOUT))[:VERSION_LENGTH]!r}"
    except SandboxError as error:
        return f"the agent does not tell its version: {error}"


async def last_words(vm: Vm, cause: str) -> tuple[str, tuple[str, ...]]:
    """Why a machine's agent was lost, and the machine's last lines.

    Args:
        vm: The machine.
        cause: What counts when the machine lives.
    """
    try:
        async with asyncio.timeout(DEATH_TIMEOUT):
            end = await vm.wait()
    except TimeoutError:
        return cause, vm.console_tail()[-EVIDENCE_LINES:]
    return end.cause, (end.evidence or vm.console_tail())[-EVIDENCE_LINES:]
