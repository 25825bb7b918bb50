"""Somebody between a client and a server, whose connections can be cut: an adaptor that is started anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PIECE = 1 << 16


class Cutter:
    """Passes bytes between a Unix socket of its own and another one.

    Attributes:
        cuts: How often it has cut.
    """

    def __init__(self, listens: str, behind: str) -> None:
        self._listens = listens
        self._behind = behind
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.passed = 0
        self.cuts = 0

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._accepted, self._listens)

    def cut(self) -> None:
        """End all connections where they are, bytes under way lost."""
        self.cuts += 1
        for writer in self._open:
            writer.transport.abort()

    async def away(self) -> None:
        """Cut, and refuse connections until `listen`."""
        assert self._server is not None
        self._server.close()
        self.cut()

    async def aclose(self) -> None:
        await self.away()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._behind)
            self._open |= {writer, far_writer}
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(reader, far_writer))
                    group.create_task(self._copy(far_reader, writer))
            finally:
                self._open -= {writer, far_writer}
                for each in (writer, far_writer):
                    each.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                writer.write(data)
                self.passed += len(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def between(listens: str, behind: str) -> AsyncIterator[Cutter]:
    """A cutter that listens."""
    cutter = Cutter(listens, behind)
    await cutter.listen()
    try:
        yield cutter
    finally:
        await cutter.aclose()
