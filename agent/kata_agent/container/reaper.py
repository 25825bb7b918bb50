"""Every child of the agent, from its start to its collected exit status.

The agent is the subreaper of all that runs in containers: children of children become its own when their
parents end. So one place collects exit statuses, by `waitpid(-1)`; nothing else in the agent may wait for a
child. Pids nobody asked about are collected and forgotten, and no zombie stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

from kata_agent import linux

# Python ignores the first two, and what a shell runs in the background the others; a container's processes must find
# all of them as a new process does.
_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT)


class Child:
    """A process whose end the agent sees.

    Signals go through a pidfd, so that they reach this process or none.

    Attributes:
        pid: Its process id in the agent's pid namespace.
        exited: Its exit code, or 128 + the signal that killed it; shield it when awaiting.
    """

    __slots__ = ("_pidfd", "exited", "pid")

    def __init__(self, pid: int, exited: asyncio.Future[int]) -> None:
        self.pid = pid
        self.exited = exited
        self._pidfd = -1 if exited.done() else os.pidfd_open(pid)

    def signal(self, number: int) -> None:
        """Send a signal; 0 only asks whether the process is there.

        Raises:
            ProcessLookupError: It has ended.
            OSError: The kernel refuses the signal: no such number.
        """
        if self.exited.done():
            raise ProcessLookupError(f"process {self.pid} has ended")
        signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self) -> int:
        """Wait for the end, whoever else does; gives the exit code, or 128 + signal."""
        return await asyncio.shield(self.exited)

    def collected(self, code: int) -> None:
        """The reaper tells that the process has ended."""
        os.close(self._pidfd)
        self._pidfd = -1
        self.exited.set_result(code)


class Reaper:
    """Starts and adopts children, and collects all that end. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, Child] = {}
        self._expecting = 0
        self._unclaimed: dict[int, int] = {}  # ended while somebody was about to adopt: pid -> code

    def start(self) -> None:
        """Become the subreaper and collect children from now on.

        Raises:
            OSError: The kernel refuses to make this process a subreaper.
        """
        linux.become_subreaper()
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect)
        self._collect()  # what ended before the handler stood

    def close(self) -> None:
        """Stop collecting."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        streams: Sequence[int] = (),
        terminal: str = "",
        program: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program.

        Args:
            argv: Its name, looked up in PATH unless `program` says where it is, and arguments.
            streams: File descriptors that become its stdin, stdout and stderr.
            terminal: Path of a terminal that becomes all three, and controls the session that it then begins.
            program: The program's path, if it shall not be called by that.
            environment: Its environment; None is ours.

        Raises:
            OSError: No such program, no such terminal, or no more processes.
        """
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]]
        actions = [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
        if terminal:  # the C library makes the session first, and so the terminal opened is its own
            actions = [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
        pid = os.posix_spawnp(
            program or argv[0],
            list(argv),
            os.environ if environment is None else environment,
            file_actions=actions,
            setsigdef=_RESET_SIGNALS,
            setsid=bool(terminal),
        )
        return self._watch(pid)

    async def run(
        self,
        argv: Sequence[str],
        *,
        streams: Sequence[int],
        timeout: float,
        program: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a program and wait for its end; a cancelled or late one is killed.

        Args:
            argv: As for `spawn`.
            streams: As for `spawn`.
            timeout: Seconds it may take.
            program: As for `spawn`.
            environment: As for `spawn`.

        Returns:
            Its exit code, or 128 + signal.

        Raises:
            TimeoutError: It took too long.
            OSError: It could not be started.
        """
        child = self.spawn(argv, streams=streams, program=program, environment=environment)
        try:
            async with asyncio.timeout(timeout):
                return await child.wait()
        except TimeoutError:
            raise TimeoutError(f"{argv[0]} was killed after {timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.signal(signal.SIGKILL)

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """While inside, exits of unknown pids are kept, so that `adopt` cannot come too late."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            if not self._expecting:
                self._unclaimed.clear()

    def adopt(self, pid: int) -> Child:
        """Take charge of a process that a program we ran has left behind; only while `expecting`.

        Raises:
            ProcessLookupError: There is no such process.
        """
        assert self._expecting, "adopt() outside of expecting()"
        if pid in self._unclaimed:
            exited: asyncio.Future[int] = self._loop.create_future()
            exited.set_result(self._unclaimed.pop(pid))
            return Child(pid, exited)
        return self._watch(pid)

    def _watch(self, pid: int) -> Child:
        # Not collected yet, so the pid cannot have been given to another process.
        child = Child(pid, self._loop.create_future())
        self._children[pid] = child
        return child

    def _collect(self) -> None:
        while (ended := linux.reap()) is not None:
            pid, code = ended
            child = self._children.pop(pid, None)
            if child is not None:
                child.collected(code)
            elif self._expecting:
                self._unclaimed[pid] = code
