"""The programs of a machine, QEMU and its helpers: on record before they run, heard while they run, missed at once."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kata_py.hypervisor.api import HypervisorError
from kata_py.resource import process
from kata_py.resource.confinement import Confinement
from kata_py.resource.journal import Journal
from kata_qemu.lines import LineReader, reading

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """A running program.

    Attributes:
        name: What it is: `qemu`, `virtiofsd`.
        pid: Its process id.
    """

    name: str
    pid: int
    _born: int | None
    _process: asyncio.subprocess.Process
    _stderr: LineReader

    async def wait(self) -> str:
        """Wait for its end, and say how it ended; all that it said before was passed on by then."""
        status = await self._process.wait()
        self._stderr.drain()
        return (
            f"{self.name} was killed by signal {-status}" if status < 0 else f"{self.name} exited with status {status}"
        )

    @property
    def failed(self) -> bool:
        """Whether it has ended, and neither quietly nor of its own will."""
        return bool(self._process.returncode)

    @property
    def alive(self) -> bool:
        """Whether it still runs; false already a little before `wait` returns."""
        return self._born is not None and process.start_time(self.pid) == self._born

    def kill(self) -> None:
        """Kill it; `wait` tells when it is gone."""
        if self._born is not None:
            process.send(self.pid, self._born, signal.SIGKILL)


@asynccontextmanager
async def running(
    journal: Journal,
    name: str,
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    confinement: Confinement | None = None,
    on_line: Callable[[int, str], None],
) -> AsyncIterator[Program]:
    """Run a program for as long as the context lasts; leaving it kills it.

    Args:
        journal: Where its undo is written.
        name: What it is.
        argv: Program and arguments.
        pass_fds: Descriptors it inherits.
        confinement: What is left to it; None is all that we have ourselves.
        on_line: Gets its pid and each line of its stderr.

    Raises:
        HypervisorError: It could not be started.
        KillError: On leaving: it outlived SIGKILL.
    """
    log.debug("running %s: %s", name, shlex.join(argv))
    line = confinement.command(argv) if confinement else argv
    if confinement and confinement.user:
        pass_fds = (*pass_fds, confinement.user.claim)
    async with AsyncExitStack() as stack:
        ours, theirs = os.pipe()
        stack.callback(os.close, ours)
        try:
            child = await stack.enter_async_context(
                process.spawn(journal, name, line, pass_fds=pass_fds, stderr=theirs)
            )
        except OSError as error:
            raise HypervisorError(name, f"cannot start {argv[0]}: {error}") from error
        finally:
            os.close(theirs)
        stderr = stack.enter_context(reading(ours, lambda line: on_line(child.pid, line)))
        yield Program(name, child.pid, process.start_time(child.pid), child, stderr)
