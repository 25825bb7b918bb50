"""The agent's end of one standard stream: a pipe's or a terminal's.

It is served by calls: the agent reads only when asked to, so a host that does not read stops the process at
its pipe's capacity and costs no memory here.

An output stream ends when its last writer is gone, or else soon after the process: a background child may
hold the pipe for years, and hosts wait for the streams' end before they ask for the exit code. What the
process itself wrote is never lost: it lies in the pipe when the process ends, and the pipe has a capacity.
"""

from __future__ import annotations

import asyncio
import errno
import os

from kata_agent.errors import AgentError

DRAIN_TIME = 0.5  # seconds in which output of children that outlive the process is still passed on
PIPE_CAPACITY = 65536  # the kernel's default; a terminal holds less


class OutputStream:
    """The reading end of stdout or stderr. Owns its descriptor and closes it at the end of the stream."""

    def __init__(self, fd: int, capacity: int = PIPE_CAPACITY) -> None:
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._capacity = capacity
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._drain_until: float | None = None  # in the loop's time, once the process has ended
        self._left = capacity  # bytes the process itself can have left behind
        self._given = 0  # bytes, to callers that count
        self._last = b""  # what these were given last

    async def read(self, limit: int, offset: int | None = None) -> bytes:
        """The next bytes, at most `limit`, waiting for the first; empty at the end, also when asked again.

        Args:
            limit: How many at most.
            offset: How many the caller has; where that is less than were given, the last answer was lost and is given
                again. None is a caller that does not count, for whom nothing is kept.

        Raises:
            AgentError: More was lost than is kept.
        """
        async with self._turn:
            if offset is None:
                return await self._read(limit)
            if offset == self._given - len(self._last):
                if self._last:
                    return self._last
            elif offset != self._given:
                raise AgentError(
                    f"offset {offset}: {self._given} bytes were given, the last {len(self._last)} are kept"
                )
            self._last = b""  # the caller has it
            self._last = await self._read(limit)
            self._given += len(self._last)
            return self._last

    async def _read(self, limit: int) -> bytes:
        while self._fd >= 0:
            over = self._drain_until is not None and self._loop.time() >= self._drain_until
            try:
                data = b"" if over and self._left <= 0 else os.read(self._fd, limit)
            except BlockingIOError:
                if not over:
                    await self._readable()
                    continue
                data = b""
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                data = b""  # a terminal whose last user is gone
            if self._drain_until is not None:
                self._left -= len(data)
            if not data:
                self.close()
            return data
        return b""

    async def _readable(self) -> None:
        self._wake.clear()
        self._loop.add_reader(self._fd, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)

    def process_ended(self) -> None:
        """The process has ended: the stream does so too once what it wrote is read and the drain time over."""
        self._drain_until = self._loop.time() + DRAIN_TIME
        self._left = self._capacity
        self._loop.call_at(self._drain_until, self._wake.set)

    def close(self) -> None:
        """End the stream now; a pending read gives the end."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._wake.set()


class InputStream:
    """The writing end of stdin. Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._ending = False
        self._pending = 0
        self._taken = 0  # bytes

    async def write(self, data: bytes, offset: int | None = None) -> None:
        """Write it all, waiting while the process does not read. Writes take turns in order of their calls.

        Args:
            data: The bytes.
            offset: How many the caller has written before; what was taken of these already, by a call whose answer
                was lost, is not written twice. None is a caller that does not count.

        Raises:
            AgentError: Stdin was closed, or the process no longer reads it; or bytes before these are missing.
        """
        if self._ending:
            raise AgentError("Cannot get writer: stdin is closed")
        self._pending += 1
        try:
            async with self._turn:
                await self._write(memoryview(data)[self._known(offset) :])
        finally:
            self._pending -= 1
            self._settle()

    def _known(self, offset: int | None) -> int:
        """How many of the bytes at that offset were taken before."""
        if offset is None:
            return 0
        if offset > self._taken:
            raise AgentError(f"offset {offset}: only {self._taken} bytes were written before")
        return self._taken - offset

    async def _write(self, rest: memoryview) -> None:
        while rest:
            if self._fd < 0:
                raise AgentError("Cannot get writer: stdin is closed")
            try:
                count = os.write(self._fd, rest)
                self._taken += count
                rest = rest[count:]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self.abandon()
                raise AgentError(f"Cannot get writer: the process no longer reads stdin: {error.strerror}") from error

    async def _writable(self) -> None:
        self._wake.clear()
        self._loop.add_writer(self._fd, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """End stdin once the writes under way are done. Closing twice is fine."""
        self._ending = True
        self._settle()

    def _settle(self) -> None:
        if self._ending and not self._pending:
            self.abandon()

    def abandon(self) -> None:
        """End stdin now; pending writes fail."""
        self._ending = True
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._wake.set()
