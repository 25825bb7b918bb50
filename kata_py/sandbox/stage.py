"""The stages of a sandbox's start: each timed, and each failure told with its stage and what is known of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kata_py.hypervisor.api import HypervisorError, Vm
from kata_py.resource.journal import Journal
from kata_py.sandbox.errors import DeadlineExceeded, StageFailed, Unavailable

DEATH_TIMEOUT = 3.0  # seconds that a lost connection waits to learn of its machine's end; QEMU's own takes one or two
EVIDENCE_LINES = 10


class Stages:
    """Enters stages.

    Args:
        journal: Where they are timed.

    Attributes:
        vm: The machine, once there is one.
    """

    def __init__(self, journal: Journal) -> None:
        self.vm: Vm | None = None
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
            elapsed = time.monotonic() - began
            stage, cause, evidence = await self._failure(name, error)
            raise StageFailed(stage, cause, elapsed=elapsed, budget=budget, evidence=evidence) from error

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
        return name, str(error), ()  # of the host's or told by the agent itself: the console has nothing to add


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
