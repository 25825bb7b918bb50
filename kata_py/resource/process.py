"""Child processes that are on record before they run, and their certain end.

A child is started behind a gate: a shell that waits for one line on its standard input before it executes
the program. Its pid and start time go into the journal first, then the gate opens. If the starter dies in
between, the pipe closes and the child ends without having run anything.

The delete path imports this module too, so asyncio is imported where it is needed.
"""

from __future__ import annotations

import os
import select
import signal as signals
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import asyncio

    from kata_py.resource.journal import Journal

KILL_TIMEOUT = 5.0  # seconds; containerd gives the delete binary as long

# The gate is the standard input, as dash cannot redirect descriptors above 9.
# What began after its starter's end has another parent. A dump of QEMU would be one of its guest.
_GATE = '[ "$PPID" = "$1" ] && read -r _ || exit 125; ulimit -c 0; input=$2; shift 2; exec "$@" <"$input"'
_MORTAL = ("/usr/bin/setpriv", "--pdeathsig", "KILL")  # util-linux


class KillError(Exception):
    """A process outlived SIGKILL: it is stuck in the kernel."""


def start_time(pid: int) -> int | None:
    """The process's start time in clock ticks since boot, or None when there is no such process.

    A zombie counts as gone. Source: proc(5), `/proc/pid/stat` fields 3 and 22.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 pathlib would cost an import on the delete path
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def kill(pid: int, born: int, signal: int, *, name: str, timeout: float = KILL_TIMEOUT) -> None:
    """Signal the process if it still is the one born then, and wait for its end.

    Args:
        pid: Its id.
        born: Its `start_time`.
        signal: The signal; only SIGKILL makes the end certain.
        name: What it is, for the error.
        timeout: Seconds to wait for the end.

    Raises:
        KillError: It is still there after the timeout.
    """
    with _signalled(pid, born, signal) as pidfd:
        if pidfd is None:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise KillError(f"{name} (pid {pid}) is still there {timeout:g} s after signal {signal}")


@dataclass(frozen=True, slots=True)
class KillProcess:
    """A child process: killed, and waited for, if it still is the one that was started.

    Attributes:
        pid: Its process id on the host.
        start_time: Field 22 of `/proc/<pid>/stat`, in clock ticks since boot: tells it from a later process
            that got the same id.
        name: What it is, for people: `qemu`, `virtiofsd`.
    """

    kind: ClassVar[str] = "kill-process"
    pid: int
    start_time: int
    name: str

    def perform(self) -> None:
        """Kill the process and wait until it is gone, at most five seconds."""
        kill(self.pid, self.start_time, signals.SIGKILL, name=self.name)


def send(pid: int, born: int, signal: int) -> None:
    """Signal the process if it still is the one born then; it being gone is fine."""
    with _signalled(pid, born, signal):
        pass


@asynccontextmanager
async def spawn(
    journal: Journal,
    name: str,
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program that is in the journal, as a `KillProcess`, before its first instruction.

    Leaving the context kills it, reaps it and strikes the entry. The kernel kills it when we die: nobody could take
    it over, and under CRI-O nobody would undo our record. It leads a session of its own, and leaves no core dump.

    Args:
        journal: Where its undo is written.
        name: What it is, for people and the record.
        argv: Program and arguments.
        pass_fds: File descriptors it inherits, under the same numbers.
        env: Its environment; None is this process's.
        stdin: The descriptor of a file that it reads from the start; None is /dev/null.
        stdout: A descriptor; None is /dev/null. With `asyncio.subprocess.PIPE` its end comes only when nobody else
            holds that pipe. Likewise stderr.

    Raises:
        OSError: No shell, no memory, no processes left, or the journal cannot be written; nothing runs.
        KillError: On leaving: it outlived SIGKILL; the entry stays in the journal.
    """
    import asyncio

    nothing = asyncio.subprocess.DEVNULL
    source = "/dev/null" if stdin is None else f"/proc/{os.getpid()}/fd/{stdin}"
    gate_read, gate_write = os.pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            *_MORTAL, "/bin/sh", "-c", _GATE, name, str(os.getpid()), source, *argv, pass_fds=pass_fds, env=env,
            start_new_session=True, stdin=gate_read, stdout=nothing if stdout is None else stdout,
            stderr=nothing if stderr is None else stderr,
        )  # fmt: skip
    except BaseException:
        os.close(gate_write)
        raise
    finally:
        os.close(gate_read)
    undo = None
    try:
        try:
            born = start_time(child.pid)
            if born is not None:
                journal.intend(entry := KillProcess(child.pid, born, name))
                undo = entry
                os.write(gate_write, b"\n")
        except BrokenPipeError:
            pass  # somebody was quick to kill the shell: an end like any other
        finally:
            os.close(gate_write)
        yield child
    finally:
        if undo:
            send(undo.pid, undo.start_time, signals.SIGKILL)
        reaping = asyncio.create_task(child.wait(), name=f"end of {name}")
        try:
            await asyncio.wait([reaping], timeout=KILL_TIMEOUT)
        except asyncio.CancelledError:  # has to wait too: the end is near, and the entry goes with it
            await asyncio.wait([reaping], timeout=KILL_TIMEOUT)
            raise
        finally:
            if undo and reaping.done():
                journal.settled(undo)
            reaping.cancel()
        if not reaping.done():
            raise KillError(f"{name} (pid {child.pid}) is still there {KILL_TIMEOUT:g} s after SIGKILL")


@contextmanager
def _signalled(pid: int, born: int, signal: int) -> Iterator[int | None]:
    """Signal the process born then; gives its pidfd, or None when it is gone already."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        alive = start_time(pid) == born  # asked after the pidfd was opened: no race with reuse
        if alive:
            try:
                signals.pidfd_send_signal(pidfd, signal)
            except ProcessLookupError:
                alive = False
        yield pidfd if alive else None
    finally:
        os.close(pidfd)
