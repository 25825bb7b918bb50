"""Streams of messages, as handlers and callers see them, and the bounded inbox behind them.

ttrpc has no flow control of its own. So a stream whose reader is slow stops the reading of its whole
connection; if that lasts, it is the stream that ends and not the connection, as other calls wait behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_py.ttrpc.connection import ServerConnection
    from kata_py.ttrpc.link import Link

STALL_TIMEOUT: Final = 1.0
"""Seconds that a full inbox may hold up its connection. Source: the same in ttrpc `stream.go`."""

_MESSAGES_MAX: Final = 64
_BYTES_MAX: Final = 1 << 20


class Inbox:
    """Messages that came on a stream and are not read yet.

    Args:
        link: The connection, whose reading stops while the inbox is full.
        stall_timeout: Seconds that it may stay full; then the stream ends with `RESOURCE_EXHAUSTED`.
    """

    def __init__(self, link: Link, stall_timeout: float = STALL_TIMEOUT) -> None:
        self._link = link
        self._stall_timeout = stall_timeout
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._end: Exception | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._stall: asyncio.TimerHandle | None = None

    def put(self, message: bytes) -> None:
        """A message came."""
        if self._ended:
            return
        self._messages.append(message)
        self._bytes += len(message)
        if self._stall is None and (len(self._messages) >= _MESSAGES_MAX or self._bytes >= _BYTES_MAX):
            self._link.hold()
            self._stall = asyncio.get_running_loop().call_later(self._stall_timeout, self._stalled)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more will come; an error is raised to the reader after what came before it."""
        if not self._ended:
            self._ended, self._end = True, error
            self._wake()

    def discard(self) -> None:
        """Nobody reads any more."""
        self._messages.clear()
        self._bytes = 0
        self._release()
        self.end()

    async def get(self) -> bytes | None:
        """The next message; None at the end.

        Raises:
            StatusError: The stream ended with a status other than OK, or its reader was too slow.
            ConnectionClosed: The connection was lost.
        """
        while not self._messages:
            if self._ended:
                if self._end is not None:
                    raise self._end
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._bytes -= len(message)
        if self._bytes <= _BYTES_MAX // 2 and len(self._messages) <= _MESSAGES_MAX // 2:
            self._release()
        return message

    def _stalled(self) -> None:
        self._messages.clear()
        self._bytes = 0
        self._release()
        text = f"stream full: its messages were not read for {self._stall_timeout:g} s"
        self._ended, self._end = True, StatusError(Code.RESOURCE_EXHAUSTED, text)
        self._wake()

    def _release(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
            self._link.release()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ServerStream:
    """A stream as its handler sees it: an asynchronous iterator of what the client sends.

    Args:
        stream_id: Its number.
        connection: The core.
        link: The connection on the loop.
    """

    def __init__(self, stream_id: int, connection: ServerConnection, link: Link) -> None:
        self._stream_id = stream_id
        self._connection = connection
        self._link = link
        self.inbox = Inbox(link)

    async def receive(self) -> bytes | None:
        """The client's next message; None when it will send no more.

        Raises:
            StatusError: This reader was too slow.
            ConnectionClosed: The connection was lost.
        """
        return await self.inbox.get()

    def __aiter__(self) -> ServerStream:
        return self

    async def __anext__(self) -> bytes:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    async def send(self, message: bytes) -> None:
        """Send a message; waits while the client reads slower than we write.

        Raises:
            MessageTooLong: It does not fit into a frame; nothing was sent.
        """
        await self._link.drain()
        self._connection.send_message(self._stream_id, message)
        self._link.flush_soon()
