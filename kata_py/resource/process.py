"""Child processes that are on record before they run, and their certain end.

A child is started behind a gate: a shell that waits for one line on a pipe before it executes the program.
Its pid and start time go into the journal first, then the gate opens. If the starter dies in between, the
pipe closes and the child ends without having run anything.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal as signals
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_py.resource.journal import Journal

KILL_TIMEOUT = 5.0  # seconds; containerd gives the delete binary as long

# dash and busybox sh alike: read one line from the gate, close it, become the program.
_GATE = 'read -r _ <&{fd} || exit 125; exec {fd}<&-; exec "$@"'


class KillError(Exception):
    """A process outlived SIGKILL: it is stuck in the kernel."""


def start_time(pid: int) -> int | None:
    """The process's start time in clock ticks since boot, or None when there is no such process.

    A zombie counts as gone. Source: proc(5), `/proc/pid/stat` fields 3 and 22.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
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
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time(pid) != born:  # asked after the pidfd was opened: no race with reuse
            return
        try:
            signals.pidfd_send_signal(pidfd, signal)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise KillError(f"{name} (pid {pid}) is still there {timeout:g} s after signal {signal}")
    finally:
        os.close(pidfd)


async def spawn(
    journal: Journal,
    name: str,
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    stdout: int | None = asyncio.subprocess.DEVNULL,
    stderr: int | None = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start a program that is in the journal before its first instruction.

    The journal's entry is a `KillProcess`; the caller settles it after the process was waited for.

    Args:
        journal: Where its undo is written.
        name: What it is, for people and the record.
        argv: Program and arguments.
        pass_fds: File descriptors it inherits, under the same numbers.
        env: Its environment; None is this process's.
        stdin: As for `asyncio.create_subprocess_exec`, likewise stdout and stderr.

    Raises:
        OSError: No shell, no memory, no processes left.
    """
    from kata_py.resource.undo import KillProcess  # undo imports this module

    gate_read, gate_write = os.pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _GATE.format(fd=gate_read), name, *argv,
            pass_fds=(*pass_fds, gate_read), env=env, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        born = start_time(child.pid)
        if born is not None:
            journal.intend(KillProcess(child.pid, born, name))
            os.write(gate_write, b"\n")
    finally:
        os.close(gate_read)
        os.close(gate_write)
    return child
