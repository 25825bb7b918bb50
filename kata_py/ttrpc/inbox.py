"""What came on a stream and is not read yet: bounded, as ttrpc has no flow control of its own.

A stream whose reader is slow stops the reading of its whole connection; if that lasts, it is the stream that
ends and not the connection, as other calls wait behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_py.ttrpc.link import Link

STALL_TIMEOUT: Final = 1.0
"""Seconds that a full inbox may hold up its connection. Source: the same in ttrpc `stream.go`."""

MESSAGES_MAX: Final = 64
"""Messages that make an inbox full. Source: the same in ttrpc `services.go`."""

BYTES_MAX: Final = 1 << 20
"""Bytes that make an inbox full."""


class Inbox:
    """Messages of one stream, for one reader.

    Args:
        link: The connection, whose reading stops while the inbox is full.
        stall_timeout: Seconds that it may stay full; then the stream ends with `RESOURCE_EXHAUSTED`.
    """

    def __init__(self, link: Link, stall_timeout: float = STALL_TIMEOUT) -> None:
        self._link = link
        self._stall_timeout = stall_timeout
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self.ended = False
        self.error: Exception | None = None

    def put(self, message: bytes) -> None:
        """A message came; after the end it is dropped."""
        if self.ended:
            return
        self._messages.append(message)
        self._bytes += len(message)
        if self._stall is None and (len(self._messages) >= MESSAGES_MAX or self._bytes >= BYTES_MAX):
            self._link.hold()
            self._stall = asyncio.get_running_loop().call_later(self._stall_timeout, self._stalled)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more will come; the reader gets the error after what came before it."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake()

    def discard(self, error: Exception | None = None) -> None:
        """Forget what came and end."""
        self._messages.clear()
        self._bytes = 0
        self._release()
        self.end(error)

    async def get(self) -> bytes | None:
        """The next message; None at the end.

        Raises:
            StatusError: The stream ended with a status other than OK, or its reader was too slow.
            ConnectionClosed: The connection was lost.
        """
        while not self._messages:
            if self.error is not None:
                raise self.error
            if self.ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._bytes -= len(message)
        if len(self._messages) <= MESSAGES_MAX // 2 and self._bytes <= BYTES_MAX // 2:
            self._release()
        return message

    def _stalled(self) -> None:
        text = f"stream full: its messages were not read for {self._stall_timeout:g} s"
        self.ended = False  # the peer may have ended it already, but the reader has not got all
        self.discard(StatusError(Code.RESOURCE_EXHAUSTED, text))

    def _release(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
            self._link.release()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
