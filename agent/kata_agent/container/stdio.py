"""The three standard streams of one process, made of pipes or of a terminal.

Pipes, not sockets, so that a process may open `/dev/stdout` anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from kata_agent import linux
from kata_agent.container.stream import PIPE_CAPACITY, InputStream, OutputStream
from kata_agent.errors import Unavailable


class Stdio:
    """The agent's ends of a process's streams.

    Attributes:
        stdin: Where its input is written.
        stdout: Where its output is read; with a terminal, all of it.
        stderr: Where its error output is read; None with a terminal, which has one output.
    """

    def __init__(
        self, stdin: InputStream, stdout: OutputStream, stderr: OutputStream | None, terminal: Terminal | None = None
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._terminal = terminal

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size.

        Raises:
            Unavailable: There is no terminal.
        """
        if self._terminal is None:
            raise Unavailable("no tty")
        self._terminal.resize(rows, columns)

    def process_ended(self) -> None:
        """Nobody reads stdin any more, and the output ends once it is drained."""
        self.stdin.abandon()
        self.stdout.process_ended()
        if self.stderr is not None:
            self.stderr.process_ended()
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def close(self) -> None:
        """End all streams now."""
        self.process_ended()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()


class Terminal:
    """A terminal's master, to set its size by.

    The slave is held open as well: a process may close it and open it anew, as an init does with its console,
    and the output must not end in between.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._peer = linux.open_terminal_peer(master)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size; the processes in the foreground get SIGWINCH."""
        linux.set_window_size(self._master, rows, columns)

    def close(self) -> None:
        """Let go of both ends; what was written can still be read elsewhere."""
        os.close(self._peer)
        os.close(self._master)


@contextlib.contextmanager
def pipes(capacity: int = 0) -> Iterator[tuple[Stdio, tuple[int, int, int]]]:
    """Three pipes: our ends, and the process's descriptors, which are closed on leaving.

    A failure inside closes our ends too.

    Args:
        capacity: Bytes each output pipe holds; 0 leaves the kernel's default.

    Raises:
        OSError: Too many open files, or a capacity above the kernel's limit.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (stdin, stdin_writer), (stdout_reader, stdout), (stderr_reader, stderr) = ends
        for fd in (stdin, stdout, stderr):
            theirs.callback(os.close, fd)
        if capacity:
            fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, capacity)
            capacity = fcntl.fcntl(stderr, fcntl.F_SETPIPE_SZ, capacity)
        capacity = capacity or PIPE_CAPACITY
        output, errors = OutputStream(stdout_reader, capacity), OutputStream(stderr_reader, capacity)
        stdio = Stdio(InputStream(stdin_writer), output, errors)
        ours.callback(stdio.close)
        yield stdio, (stdin, stdout, stderr)
        ours.pop_all()


def terminal(master: int) -> Stdio:
    """The streams of a terminal; takes over the master.

    Raises:
        OSError: The descriptor is no terminal's master; it is closed.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        control = Terminal(master)
        stack.pop_all()
    return Stdio(InputStream(os.dup(master)), OutputStream(os.dup(master)), None, control)
