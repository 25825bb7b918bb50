"""Streams of messages, as handlers and callers see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.inbox import Inbox
from kata_py.ttrpc.status import Code

if TYPE_CHECKING:
    from kata_py.ttrpc.connection import ClientConnection, ServerConnection
    from kata_py.ttrpc.link import Link

Req = TypeVar("Req")
Resp = TypeVar("Resp")


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
            StatusError: The client broke the stream's rules, or this reader was too slow.
            ConnectionClosed: The connection was lost.
        """
        return await self.inbox.get()

    def __aiter__(self) -> ServerStream:
        return self

    async def __anext__(self) -> bytes:
        message = await self.inbox.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def send(self, message: bytes) -> None:
        """Send a message; waits while the client reads slower than we write.

        Raises:
            MessageTooLong: It does not fit into a frame; nothing was sent.
            StatusError: As for `receive`.
            ConnectionClosed: The connection was lost.
        """
        await self._link.drain()
        if self.inbox.error is not None:
            raise self.inbox.error
        self._connection.send_message(self._stream_id, message)
        self._link.flush_soon()


class ClientStream(Generic[Req, Resp]):
    """A stream as its caller sees it: an asynchronous iterator of what the server sends.

    Args:
        stream_id: Its number.
        connection: The core.
        link: The connection on the loop.
        encode: Makes bytes of a message to send.
        decode: Makes a message of received bytes.
        sends: Whether we send messages at all.
    """

    def __init__(
        self,
        stream_id: int,
        connection: ClientConnection,
        link: Link,
        encode: Callable[[Req], bytes],
        decode: Callable[[bytes], Resp],
        *,
        sends: bool,
    ) -> None:
        self._stream_id = stream_id
        self._connection = connection
        self._link = link
        self._encode = encode
        self._decode = decode
        self._sending = sends
        self.inbox = Inbox(link)

    async def send(self, message: Req) -> None:
        """Send a message; waits while the server reads slower than we write.

        Raises:
            MessageTooLong: It does not fit into a frame; nothing was sent.
            StatusError: The stream has ended.
            ConnectionClosed: The connection was lost.
        """
        await self._link.drain()
        if self.inbox.error is not None:
            raise self.inbox.error
        if self.inbox.ended or not self._sending:
            raise StatusError(Code.FAILED_PRECONDITION, "the stream is closed for sending")
        self._connection.send_message(self._stream_id, self._encode(message))
        self._link.flush_soon()

    def close_send(self) -> None:
        """Tell the server that no more messages follow; leaving the stream's context does so too."""
        if self._sending:
            self._sending = False
            self._connection.send_message(self._stream_id, None, closed=True)
            self._link.flush_soon()

    async def receive(self) -> Resp | None:
        """The server's next message; None at the end.

        Raises:
            StatusError: The stream ended with a status other than OK, or this reader was too slow.
            ConnectionClosed: The connection was lost.
        """
        message = await self.inbox.get()
        return None if message is None else self._decode(message)

    def __aiter__(self) -> ClientStream[Req, Resp]:
        return self

    async def __anext__(self) -> Resp:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    async def response(self) -> Resp:
        """The one response of a method that does not stream its answer.

        Raises:
            StatusError: As for `receive`.
            ConnectionClosed: As for `receive`.
        """
        return self._decode(await self.inbox.get() or b"")  # an empty message has no bytes
