"""One connection on the event loop: bytes from an asyncio transport into the core, and the core's bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kata_py.ttrpc.connection import Connection
from kata_py.ttrpc.context import Peer

_WRITE_HIGH: Final = 1 << 18  # bytes waiting to be written above which senders are asked to wait
_JOIN_MAX: Final = 1 << 14


class Link(asyncio.BufferedProtocol):
    """Joins a transport and a core; its owner acts on what comes.

    Args:
        connection: The core.
        receive: Called with the count of bytes that came into the core's space; what the core then has to
            send is sent.
        lost: Called once, when the connection has ended; with the error, if it did not end in order.
        writable: Called with False when the peer takes no more bytes for now, with True when it does again.
    """

    def __init__(
        self,
        connection: Connection,
        receive: Callable[[int], None],
        lost: Callable[[Exception | None], None],
        writable: Callable[[bool], None] | None = None,
    ) -> None:
        self._connection = connection
        self._receive = receive
        self._lost = lost
        self._writable = writable
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._holds = 0
        self._resumed: asyncio.Future[None] | None = None
        self.closed = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        if self.closed:
            transport.abort()
        else:
            self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts received bytes."""
        return self._connection.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes were received."""
        self._receive(nbytes)
        self.flush_soon()

    def eof_received(self) -> bool:
        """The peer closed its side, and so the connection: ttrpc has no half-open state."""
        return False

    def pause_writing(self) -> None:
        """The peer reads slower than we write."""
        if self._resumed is None:
            self._resumed = self._loop.create_future()
        if self._writable is not None:
            self._writable(False)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None
        if self._writable is not None:
            self._writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.closed = True
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None
        self._lost(exc)

    # What the owner calls.

    def flush_soon(self) -> None:
        """Send what the core has to send, together with all else that is queued in this turn of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what the core has to send, now."""
        self._flush_due = False
        transport = self._transport
        if transport is None or self.closed:
            return
        pieces = self._connection.data_to_send()
        joined: list[bytes] = []
        for piece in pieces:
            if len(piece) < _JOIN_MAX:
                joined.append(piece)
                continue
            if joined:
                transport.write(b"".join(joined))
                joined.clear()
            transport.write(piece)
        if joined:
            transport.write(b"".join(joined))

    @property
    def paused(self) -> bool:
        """Whether senders ought to wait in `drain`."""
        return self._resumed is not None

    async def drain(self) -> None:
        """Wait until the peer takes bytes again, or the connection is lost."""
        while self._resumed is not None:
            await asyncio.shield(self._resumed)

    def hold(self) -> None:
        """Stop reading, for as many `release` calls as there were `hold` calls."""
        self._holds += 1
        if self._holds == 1 and self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def release(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1
        if self._holds == 0 and self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None:
            self.flush()
            self._transport.close()
        self.closed = True

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        if self._transport is not None:
            self._transport.abort()
        self.closed = True

    def peer(self) -> Peer | None:
        """Who is at the other end of a Unix socket; None elsewhere."""
        import socket
        import struct

        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
