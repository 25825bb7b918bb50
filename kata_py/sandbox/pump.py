"""Copying a stream through a bounded buffer, so that reading goes on while writing waits.

The guest's agent tells how a process ended to those who have read its output to the end. A manager that
stops reading must not keep us from that end. So we read ahead up to a limit, which is widened, by as much as an
ended process can leave unread in its pipe, whenever the process may have ended:

- at each signal: whoever sends one calls `widen`;
- as time goes by, for it may end by itself: after `patience`, then after twice as long, and so on.

An end is seen at the latest `patience` after twice the time that nobody has taken anything, and a day of that
costs 15 MiB. Once all is taken the limit is as at first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

LIMIT = 1 << 20  # bytes read ahead
LIMIT_MAX = 16 << 20  # bytes, however often the limit is widened
WIDTH = 1 << 20  # bytes a `widen` adds: the largest pipe that an unprivileged process may ask for


class Pump:
    """Copies what `read` gives to `write`, in order, until `read` gives nothing.

    Args:
        name: What is copied, for the log.
        read: Gives the next bytes; empty at the end.
        write: Takes bytes. Once it has raised, the rest is read and thrown away.
        piece: The most bytes written at once; what has gathered in the buffer is joined up to it.
        patience: Seconds that writing may make no progress once reading has ended, and that reading first waits
            for room; `math.inf` is without end.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[bytes]],
        write: Callable[[bytes], Awaitable[None]],
        *,
        piece: int,
        patience: float,
    ) -> None:
        self.name = name
        self._read = read
        self._write = write
        self._piece = piece
        self._patience = patience
        self._limit = LIMIT
        self._pause = patience
        self._buffer = bytearray()
        self._ended = False
        self._written = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> bool:
        """Copy to the end; whether everything was written, or else writing was given up."""
        writer = asyncio.create_task(self._empty(), name=f"{self.name} writer")
        try:
            await self._fill()
            written = None
            while not writer.done() and written != self._written:
                written = self._written
                await asyncio.wait([writer], timeout=self._patience)
            if writer.done():
                return True
            logger.warning("%s: not read for %g s, the rest is lost", self.name, self._patience)
            return False
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    def widen(self) -> None:
        """Let reading go on for another `WIDTH` bytes though nobody takes what was read."""
        self._limit = min(self._limit + WIDTH, LIMIT_MAX)
        self._room.set()

    async def _fill(self) -> None:
        while data := await self._read():
            self._buffer += data
            self._filled.set()
            while len(self._buffer) >= self._limit:
                self._room.clear()
                try:
                    async with asyncio.timeout(self._pause):
                        await self._room.wait()
                except TimeoutError:
                    self._pause *= 2
                    self.widen()
        self._ended = True
        self._filled.set()

    async def _empty(self) -> None:
        write = self._write
        while piece := await self._next():
            try:
                await write(piece)
            except Exception as error:
                logger.debug("%s: the rest is thrown away: %s", self.name, error)
                write = _discard
            self._written += len(piece)

    async def _next(self) -> bytes:
        while not self._buffer and not self._ended:
            self._filled.clear()
            await self._filled.wait()
        with memoryview(self._buffer) as view:
            piece = bytes(view[: self._piece])
        del self._buffer[: self._piece]
        if not self._buffer:
            self._limit, self._pause = LIMIT, self._patience
        self._room.set()
        return piece


async def _discard(data: bytes) -> None:
    pass
