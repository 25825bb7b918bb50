"""A ttrpc client: calls over one connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.connection import ClientConnection, ResponseReceived
from kata_py.ttrpc.envelope import Response
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.link import Link
from kata_py.ttrpc.status import Code


@asynccontextmanager
async def connect(address: Address, *, timeout: float) -> AsyncIterator[Client]:
    """Connect to a server; leaving the context closes the connection.

    Args:
        address: Where it listens.
        timeout: Seconds until it must be reached.

    Raises:
        ConnectError: It could not be reached.
    """
    client = Client(str(address))
    await transport.connect(address, lambda: client.link, timeout)
    try:
        yield client
    finally:
        await client.aclose()


class Client:
    """Calls over one connection. Any number may be in flight; they are answered in any order.

    Args:
        name: What it is connected to, for errors.
    """

    def __init__(self, name: str = "peer") -> None:
        self.name = name
        self._connection = ClientConnection()
        self.link = Link(self._connection, self._received, self._lost)
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Response]] = {}
        self._gone = asyncio.Event()

    @classmethod
    async def over(cls, sock: socket.socket) -> Client:
        """A client over a connected stream socket, which it owns from now on."""
        client = cls()
        await asyncio.get_running_loop().create_connection(lambda: client.link, sock=sock)
        return client

    @property
    def closed(self) -> bool:
        """Whether the connection is gone; every call fails then."""
        return self.link.closed

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, whoever ended it."""
        await self._gone.wait()

    async def aclose(self) -> None:
        """Close the connection; pending calls fail with `ConnectionClosed`."""
        self.link.close()
        await self._gone.wait()

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Call a method and return the serialised response.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            payload: The serialised request.
            timeout: Seconds to wait for the answer; the server is told. None is without end.
            metadata: Sent along.

        Raises:
            StatusError: The answer is a status other than OK, or none came in time (`DEADLINE_EXCEEDED`).
            MessageTooLong: The request does not fit into a frame.
            ConnectionClosed: The connection was lost first.
        """
        if self.link.closed:
            raise ConnectionClosed(f"{self.name}: connection is closed")
        if self.link.paused:
            await self.link.drain()
        nanoseconds = 0 if timeout is None else max(1, int(timeout * 1e9))
        stream_id = self._connection.request(service, method, payload, timeout_nano=nanoseconds, metadata=metadata)
        answer = self._pending[stream_id] = self._loop.create_future()
        self.link.flush_soon()
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, self._expire, stream_id, service, method, timeout)
        try:
            response = await answer
        finally:
            if timer is not None:
                timer.cancel()
            if self._pending.pop(stream_id, None) is not None:
                self._connection.abandon(stream_id)
        if response.code:
            raise StatusError(Code.of(response.code), response.message, response.details)
        return response.payload

    def _expire(self, stream_id: int, service: str, method: str, timeout: float) -> None:
        answer = self._pending.get(stream_id)
        if answer is not None and not answer.done():
            text = f"{service}/{method}: no answer within {timeout:g} s"
            answer.set_exception(StatusError(Code.DEADLINE_EXCEEDED, text))

    def _received(self, count: int) -> None:
        for event in self._connection.received(count):
            if isinstance(event, ResponseReceived):
                answer = self._pending.pop(event.stream_id, None)
                if answer is not None and not answer.done():
                    answer.set_result(event.response)

    def _lost(self, error: Exception | None) -> None:
        self._gone.set()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionClosed(f"{self.name}: connection lost before the answer came"))
