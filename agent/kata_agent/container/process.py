"""One process of a container, and the table in which a container's processes are found by id."""

from __future__ import annotations

import signal
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from kata_agent.container.reaper import Child
from kata_agent.container.stdio import Stdio
from kata_agent.errors import AlreadyExists, NotFound

_KEPT = 128  # ended and waited-for processes whose exit code can still be asked for, per container


class Process:
    """A process with its streams and, in the end, its exit code.

    Attributes:
        stdio: Its streams.
        waited: Whether somebody has been given its exit code.
    """

    def __init__(self, child: Child, stdio: Stdio) -> None:
        self._child = child
        self.stdio = stdio
        self.waited = False

    @property
    def pid(self) -> int:
        """Its process id in the guest."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._child.exited.done()

    def at_end(self, call: Callable[[], object]) -> None:
        """Have something called when it ends, before anybody who waits is told."""
        self._child.exited.add_done_callback(lambda _: call())

    async def wait(self) -> int:
        """Wait for its end; gives the exit code, or 128 + the signal. Any number of waiters, at any time."""
        code = await self._child.wait()
        self.waited = True
        return code

    def signal(self, number: int) -> None:
        """Send a signal. A process that has ended is no error: the sender could not know.

        Raises:
            OSError: There is no such signal.
        """
        try:
            self._child.signal(number)
        except ProcessLookupError:
            pass

    def ignores(self, number: int) -> bool:
        """Whether the kernel drops the signal: the first process of a pid namespace gets what it handles, no more.

        Source: pid_namespaces(7), and proc(5) for `/proc/pid/status`.
        """
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if fields["NSpid"].split()[-1] != "1":
            return False
        return not any(int(fields[mask], 16) >> (number - 1) & 1 for mask in ("SigBlk", "SigIgn", "SigCgt"))

    def kill(self) -> None:
        """Send SIGKILL."""
        self.signal(signal.SIGKILL)


class ProcessTable:
    """A container's processes by id; the first one's id is the container's.

    An id is taken until its process has ended and somebody knows how. Then the last exit codes are kept for
    those who ask again, and the id may be used anew.
    """

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self._processes: OrderedDict[str, Process] = OrderedDict()
        self._reserved: set[str] = set()

    def reserve(self, exec_id: str) -> None:
        """Take an id for a process that is about to start.

        Raises:
            AlreadyExists: It is taken.
        """
        known = self._processes.get(exec_id)
        if exec_id in self._reserved or (known is not None and not (known.ended and known.waited)):
            raise AlreadyExists(f"process {exec_id} of container {self._container_id} already exists")
        if exec_id == self._container_id and known is not None:
            raise AlreadyExists(f"process {exec_id} is the first of container {self._container_id}")
        self._reserved.add(exec_id)

    def release(self, exec_id: str) -> None:
        """Give a reserved id back."""
        self._reserved.discard(exec_id)

    def add(self, exec_id: str, process: Process) -> None:
        """Enter a started process under its reserved id."""
        self._reserved.discard(exec_id)
        replaced = self._processes.pop(exec_id, None)
        if replaced is not None:
            replaced.stdio.close()
        self._processes[exec_id] = process
        self._forget_oldest()

    def find(self, exec_id: str) -> Process:
        """The process of that id; an empty one means the container's first.

        Raises:
            NotFound: There is none.
        """
        process = self._processes.get(exec_id or self._container_id)
        if process is None:
            what = f"InvalidExecId: no process {exec_id}" if exec_id else "InitProcessNotFound: no first process"
            raise NotFound(f"{what} in container {self._container_id}")
        return process

    def close(self) -> None:
        """Kill all processes and end their streams."""
        for process in self._processes.values():
            process.kill()
            process.stdio.close()

    def _forget_oldest(self) -> None:
        done = [
            exec_id
            for exec_id, process in self._processes.items()
            if process.waited and process.ended and exec_id != self._container_id
        ]
        for exec_id in done[:-_KEPT]:
            self._processes.pop(exec_id).stdio.close()
