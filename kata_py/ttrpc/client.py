"""A ttrpc client: calls over one connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, overload

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address, SerialAddress
from kata_py.ttrpc.connection import ClientConnection, ClientEvent, MessageReceived, ResponseReceived
from kata_py.ttrpc.envelope import Response
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.frames import REMOTE_CLOSED, REMOTE_OPEN
from kata_py.ttrpc.inbox import Inbox
from kata_py.ttrpc.link import Link
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.stream import ClientStream as ClientStream

Req = TypeVar("Req")
Resp = TypeVar("Resp")

_CLOSE_TIMEOUT: Final = 1.0  # seconds for what is queued to leave


class Caller(Protocol):
    """What calls can be made over: one connection, or several after another."""

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """As `Client.call`."""


@asynccontextmanager
async def connect(address: Address, *, timeout: float, retry: float | None = None) -> AsyncIterator[Client]:
    """Connect to a server; leaving the context closes the connection.

    Args:
        address: Where it listens.
        timeout: Seconds until it must be reached.
        retry: Seconds to pause after a refusal before trying again, for a peer that is still starting; None
            makes the first refusal an error.

    Raises:
        ConnectError: It could not be reached.
    """
    first_id = _id_by_the_clock() if isinstance(address, SerialAddress) else 1
    async with Client(str(address), first_id=first_id) as client:
        await transport.connect(address, lambda: client.link, timeout, retry)
        yield client


class Client:
    """Calls over one connection. Any number may be in flight; they are answered in any order.

    Make it in the running event loop; `connect` and `over` do the rest, or any asyncio transport whose
    protocol is `link`. Leaving its context closes it.

    Args:
        name: What it is connected to, for errors.
        first_id: The first stream id, odd.

    Attributes:
        link: The protocol for the transport.
    """

    def __init__(self, name: str = "peer", *, first_id: int = 1) -> None:
        self._name = name
        self._connection = ClientConnection(first_id=first_id)
        self.link = Link(self._connection, self._received, self._lost)
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[Response]] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._gone = asyncio.Event()
        self._cause = "was closed by the peer"
        self._error: Exception | None = None  # what ended the connection, if not in order

    @classmethod
    async def over(cls, sock: socket.socket, name: str = "peer") -> Client:
        """A client over a connected stream socket, which is the client's from now on."""
        client = cls(name)
        sock.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: client.link, sock=sock)
        return client

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone; every call fails then."""
        return self.link.closed

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, whoever ended it."""
        await self._gone.wait()

    async def aclose(self) -> None:
        """Close the connection; pending calls fail with `ConnectionClosed`."""
        if not self.link.closed:
            self._cause = "is closed"
        self.link.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._gone.wait()
        except TimeoutError:
            self.link.abort()
            await self._gone.wait()  # an abort needs nothing of the peer

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Call a method; returns the serialised response.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            payload: The serialised request.
            timeout: Seconds to wait for the answer, which the server is told; None is without end.
            metadata: Sent along.

        Raises:
            StatusError: The answer is a status other than OK, or none came in time (`DEADLINE_EXCEEDED`).
            MessageTooLong: The request does not fit into a frame; nothing was sent.
            ConnectionClosed: The connection was lost first.
        """
        stream_id = await self._request(service, method, payload, timeout, metadata, 0)
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._answers[stream_id] = answer
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, _expire, answer, f"{service}/{method}", timeout)
        try:
            response = await answer
        finally:
            if timer is not None:
                timer.cancel()
            if self._answers.pop(stream_id, None) is not None:
                self._connection.abandon(stream_id)
        if response.code:
            raise _status_error(response)
        return response.payload

    @overload
    def stream(
        self,
        service: str,
        method: str,
        payload: bytes | None = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[ClientStream[bytes, bytes]]: ...

    @overload
    def stream(
        self,
        service: str,
        method: str,
        payload: bytes | None = None,
        *,
        encode: Callable[[Req], bytes],
        decode: Callable[[bytes], Resp],
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[ClientStream[Req, Resp]]: ...

    @asynccontextmanager
    async def stream(
        self,
        service: str,
        method: str,
        payload: bytes | None = None,
        *,
        encode: Callable[[Any], bytes] = bytes,
        decode: Callable[[bytes], Any] = bytes,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[ClientStream[Any, Any]]:
        """Call a method that streams; leaving the context abandons what is still under way.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            payload: The one serialised request of a method that streams its answer alone; None when messages
                will be sent.
            encode: Makes bytes of a message to send.
            decode: Makes a message of received bytes.
            timeout: Seconds the whole stream may take; None is without end.
            metadata: Sent along.

        Raises:
            StatusError, MessageTooLong, ConnectionClosed: As for `call`.
        """
        flags = REMOTE_OPEN if payload is None else REMOTE_CLOSED
        stream_id = await self._request(service, method, payload or b"", timeout, metadata, flags)
        stream = ClientStream(stream_id, self._connection, self.link, encode, decode, sends=payload is None)
        self._inboxes[stream_id] = stream.inbox
        timer = None
        if timeout is not None:
            error = _late(f"{service}/{method}", timeout)
            timer = self._loop.call_later(timeout, stream.inbox.discard, error)
        try:
            yield stream
        finally:
            if timer is not None:
                timer.cancel()
            stream.close_send()
            del self._inboxes[stream_id]
            self._connection.abandon(stream_id)
            stream.inbox.discard()

    async def _request(
        self,
        service: str,
        method: str,
        payload: bytes,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
        flags: int,
    ) -> int:
        if self.link.paused:
            try:
                async with asyncio.timeout(timeout):
                    await self.link.drain()
            except TimeoutError:
                assert timeout is not None
                raise _late(f"{service}/{method}", timeout) from None
        if self.link.closed:
            text = f"{service}/{method} not sent: connection to {self._name} {self._cause}"
            raise ConnectionClosed(text) from self._error
        nanoseconds = 0 if timeout is None else max(1, int(timeout * 1e9))
        stream_id = self._connection.request(
            service, method, payload, timeout_nano=nanoseconds, metadata=metadata, flags=flags
        )
        self.link.flush_soon()
        return stream_id

    def _received(self, count: int) -> None:
        for event in self._connection.received(count):
            inbox = self._inboxes.get(event.stream_id)
            if inbox is not None:
                _deliver(event, inbox)
            elif isinstance(event, ResponseReceived):
                answer = self._answers.pop(event.stream_id, None)
                if answer is not None and not answer.done():
                    answer.set_result(event.response)

    def _lost(self, error: Exception | None) -> None:
        self._error = error
        if error is not None:
            self._cause = f"was lost: {error}"
        elif self._connection.mid_frame:
            self._cause += " in the middle of a frame"
        self._gone.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._unanswered())
        for inbox in self._inboxes.values():
            inbox.end(self._unanswered())

    def _unanswered(self) -> ConnectionClosed:
        closed = ConnectionClosed(f"no answer: connection to {self._name} {self._cause}")
        closed.__cause__ = self._error
        return closed


def _id_by_the_clock() -> int:
    # A serial line has no connections: answers to whoever used it before may still be under way, and the guest may
    # not have noticed the change of hosts. Stream ids above all earlier ones make the former late answers, which are
    # ignored, and the latter no fault. The clock gives them, one a millisecond; they come round after twelve days.
    return int(time.monotonic() * 1024) % (1 << 30) * 2 + 1


def _deliver(event: ClientEvent, inbox: Inbox) -> None:
    match event:
        case MessageReceived(_, message, closed):
            if message is not None:
                inbox.put(message)
            if closed:
                inbox.end()
        case ResponseReceived(_, response):
            if response.payload and not response.code:
                inbox.put(response.payload)
            inbox.end(_status_error(response) if response.code else None)


def _expire(answer: asyncio.Future[Response], name: str, timeout: float) -> None:
    if not answer.done():
        answer.set_exception(_late(name, timeout))


def _late(name: str, timeout: float) -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, f"{name}: no answer within {timeout:g} s")


def _status_error(response: Response) -> StatusError:
    return StatusError(Code.of(response.code), response.message, response.details)
