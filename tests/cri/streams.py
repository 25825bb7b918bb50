"""Streams of a process behind the URL that Exec and Attach give, over a WebSocket.

A message's first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the end as a Kubernetes Status, 4 the terminal's
size. Source: `kubernetes: staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go`. Version 4 of the
protocol cannot end stdin alone: only the end of the connection does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

PROTOCOL = Subprotocol("v4.channel.k8s.io")
TIMEOUT = 30.0  # seconds
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)


class Session:
    """A process's streams; what it writes is collected.

    Attributes:
        received: What came on each channel so far.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.received = {STDOUT: b"", STDERR: b"", STATUS: b""}
        self._socket = socket
        self._changed = asyncio.Event()
        self._ended = False
        self._reader = asyncio.create_task(self._read(), name="streams")

    async def send(self, data: bytes) -> None:
        """Write to stdin."""
        await self._socket.send(bytes([STDIN]) + data)

    async def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        await self._socket.send(bytes([RESIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())

    async def until(self, expected: bytes, channel: int = STDOUT) -> None:
        """Wait until the process has written this.

        Raises:
            TimeoutError: It has not in time, or the streams have ended without.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                while expected not in self.received[channel] and not self._ended:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        if expected not in self.received[channel]:
            raise TimeoutError(f"{expected!r} was not written, but {self.received[channel][-500:]!r}")

    async def ended(self) -> int:
        """Wait for the end of the streams; returns the process's exit code, as far as the manager tells it."""
        async with asyncio.timeout(TIMEOUT):
            await self._reader
        status: dict[str, Any] = json.loads(self.received[STATUS] or b"{}")
        for cause in status.get("details", {}).get("causes", []):
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        assert status.get("status", "Success") == "Success", status
        return 0

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                assert isinstance(message, bytes)
                self.received[message[0]] += message[1:]
                self._changed.set()
        except ConnectionClosed:  # without a proper end; what was received counts
            pass
        finally:
            self._ended = True
            self._changed.set()


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Session]:
    """The streams behind a URL, as long as the context lasts."""
    address = url.replace("http://", "ws://", 1)
    async with connect(address, subprotocols=[PROTOCOL], max_size=None, open_timeout=TIMEOUT, proxy=None) as socket:
        session = Session(socket)
        try:
            yield session
        finally:
            await session.close()
