"""The manager's end of one stream: a fifo, the pipe of a logger, or a file.

Fifos and pipes are non-blocking and waited for in the event loop; a file's blocking writes run in a thread.
Closing never waits and ends what waits, so a stalled reader holds up nobody but the process that writes.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import stat
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

logger = logging.getLogger(__name__)

CHUNK = 32 * 1024  # bytes; as Kata Go copies
DRAIN_TIMEOUT = 2.0  # seconds the exit of a process may be held back for a reader
_DRAIN_PAUSES = (0.001, 0.05)  # seconds: the first look at a fifo that is being emptied, and the longest pause


class Output(Protocol):
    """Where one of a process's outputs goes."""

    async def write(self, data: bytes) -> None:
        """Pass all of it on; returns early, without an error, when the other side is gone or this one closed."""

    async def drained(self) -> None:
        """Wait until the other side has read everything, `DRAIN_TIMEOUT` at most."""

    def close(self) -> None:
        """Let go of it; what was written can still be read by the other side."""


class _Descriptor:
    """A non-blocking end of a pipe, and whoever waits for it.

    Args:
        fd: The end.
        keeper: The other end, held open by us too.
    """

    def __init__(self, fd: int, keeper: int | None = None) -> None:
        self._fd = fd
        self._keeper = keeper
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False

    async def _wait(self, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        add(self._fd, self._wake)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if not self._closed:
                remove(self._fd)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _drop_keeper(self) -> None:
        if self._keeper is not None:
            os.close(self._keeper)
            self._keeper = None

    def close(self) -> None:
        """Close, and end whoever waits."""
        if self._closed:
            return
        if self._waiting is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            self._wake()
        self._closed = True
        self._drop_keeper()
        os.close(self._fd)


class Input(_Descriptor):
    """A process's stdin, read from a fifo by one reader at a time.

    A write end of our own keeps the fifo from ending when the manager closes its end or restarts: only
    `end` ends it.
    """

    _ended = False

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the fifo, whether or not anybody writes to it yet.

        Raises:
            OSError: The path cannot be opened.
        """
        return cls(*_open_both(path))

    async def read(self) -> bytes:
        """The next bytes, at most `CHUNK`; empty at the end."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                return os.read(self._fd, CHUNK)
            except BlockingIOError:
                if self._ended:  # another writer may still hold the fifo open: empty is the end then
                    return b""
            await self._wait(loop.add_reader, loop.remove_reader)
        return b""

    def end(self) -> None:
        """Let `read` give what lies in the fifo, and then the end."""
        self._ended = True
        self._drop_keeper()
        self._wake()


class PipeOutput(_Descriptor):
    """An output written into a fifo or pipe by one writer at a time.

    A fifo gets a read end of our own, so that it stays whole while a manager restarts.
    """

    @classmethod
    def open(cls, path: str) -> Self:
        """Open a fifo, whether or not anybody reads it yet.

        Raises:
            OSError: The path cannot be opened.
        """
        keeper, fd = _open_both(path)
        return cls(fd, keeper)

    async def write(self, data: bytes) -> None:
        """As `Output.write`."""
        loop = asyncio.get_running_loop()
        left = memoryview(data)
        while left and not self._closed:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                await self._wait(loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                return

    async def drained(self) -> None:
        """As `Output.drained`.

        No event tells of an emptied pipe: EPOLLOUT comes with the first free slot, and inotify does not see
        splice(2) before Linux 6.4. So this looks again, less and less often.
        """
        pause, longest = _DRAIN_PAUSES
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while not self._closed and self._unread():
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, longest)
        except TimeoutError:
            logger.info("the reader left %d bytes of output unread for %g s", self._unread(), DRAIN_TIMEOUT)

    def _unread(self) -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
        return int(count)


class FileOutput:
    """An output appended to a file. A full disk loses output, with one warning, and stops nothing."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._writing: asyncio.Future[None] | None = None
        self._failed = False

    @classmethod
    async def open(cls, path: str) -> Self:
        """Open the file for appending; it and its parents are made.

        Raises:
            OSError: It cannot be opened.
        """

        def open_file() -> int:
            Path(path).parent.mkdir(0o755, parents=True, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

        return cls(await asyncio.to_thread(open_file), path)

    async def write(self, data: bytes) -> None:
        """As `Output.write`."""
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._append, data)
        await asyncio.shield(self._writing)  # the thread goes on when the waiter is cancelled: see close

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            if not self._failed:
                logger.warning("%s: output is lost: %s", self._path, error.strerror)
            self._failed = True

    async def drained(self) -> None:
        """As `Output.drained`: a file keeps what it was given."""

    def close(self) -> None:
        """As `Output.close`."""
        if self._writing is None or self._writing.done():
            os.close(self._fd)
        else:
            self._writing.add_done_callback(lambda _: os.close(self._fd))


class NoOutput:
    """An output that nobody asked for."""

    async def write(self, data: bytes) -> None:
        """As `Output.write`."""

    async def drained(self) -> None:
        """As `Output.drained`."""

    def close(self) -> None:
        """As `Output.close`."""


def _open_both(path: str) -> tuple[int, int]:
    """A fifo's read end and write end, non-blocking: in this order both open at once, whoever else is there."""
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISFIFO(os.fstat(read).st_mode):
            raise OSError(errno.EINVAL, "not a fifo", path)
        return read, os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except BaseException:
        os.close(read)
        raise
