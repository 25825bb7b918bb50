"""One connection on the event loop: bytes from an asyncio transport into the core, and the core's bytes out."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from typing import Final

from kata_py.ttrpc.connection import JOIN_MAX, Connection
from kata_py.ttrpc.context import Peer

_WRITE_HIGH: Final = 1 << 18  # bytes the transport may hold before senders are asked to wait
_FLUSH_NOW: Final = 1 << 16  # bytes queued in the core that are not worth waiting for more


class Link(asyncio.BufferedProtocol):
    """Joins a transport and a core; its owner acts on what comes.

    Args:
        connection: The core.
        received: Called with the count of bytes that came into the core's space.
        lost: Called once, when the connection has ended; with the error, if it did not end in order.
        opened: Called when the transport is there.
        writable: Called with False when the peer takes no more bytes for now, with True when it does again.
    """

    def __init__(
        self,
        connection: Connection,
        received: Callable[[int], None],
        lost: Callable[[Exception | None], None],
        opened: Callable[[], None] | None = None,
        writable: Callable[[bool], None] | None = None,
    ) -> None:
        self._connection = connection
        self._received = received
        self._lost = lost
        self._opened = opened
        self._writable = writable
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._holds = 0
        self._resumed: asyncio.Future[None] | None = None
        self._is_lost = False
        self.closed = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.closed:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        if self._opened is not None:
            self._opened()
        if self._holds:
            # Before Python 3.11.4, asyncio begins to read after this, whatever it was told in it.
            self._loop.call_soon(self._hold_again)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts received bytes."""
        return self._connection.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes were received; faults in them are answered by the core itself."""
        self._received(nbytes)
        if self._connection.queued:
            self.flush_soon()

    def eof_received(self) -> bool:
        """The peer closed its side, and so the connection: ttrpc has no half-open state."""
        return False

    def pause_writing(self) -> None:
        """The peer reads slower than we write."""
        self._resumed = self._loop.create_future()
        if self._writable is not None:
            self._writable(False)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._wake()
        if self._writable is not None:
            self._writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._transport = None  # owner and link are a cycle, and what waits with it for the collector may be large: TLS
        self.closed = True
        self._wake()
        if not self._is_lost:
            self._is_lost = True
            self._lost(exc)

    # What the owner calls.

    def flush_soon(self) -> None:
        """Send what the core has to send, together with what else is queued in this turn of the loop."""
        if self._connection.queued >= _FLUSH_NOW:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what the core has to send, now."""
        self._flush_due = False
        transport = self._transport
        if transport is None or self.closed:
            return
        pieces = self._connection.data_to_send()
        if len(pieces) == 1:
            transport.write(pieces[0])
            return
        small: list[bytes] = []
        for piece in pieces:
            if len(piece) <= JOIN_MAX:
                small.append(piece)
                continue
            if small:
                transport.write(b"".join(small))
                small.clear()
            transport.write(memoryview(piece))  # a transport slices what the socket does not take at once
        if small:
            transport.write(b"".join(small))

    @property
    def paused(self) -> bool:
        """Whether senders ought to wait in `drain`."""
        return self._resumed is not None

    async def drain(self) -> None:
        """Wait until the peer takes bytes again, or the connection is lost."""
        while self._resumed is not None:
            await asyncio.shield(self._resumed)

    def hold(self) -> None:
        """Stop reading, until there were as many `release` calls as `hold` calls."""
        self._holds += 1
        if self._holds == 1 and self._transport is not None:
            self._transport.pause_reading()

    def _hold_again(self) -> None:
        if self._holds and self._transport is not None and not self.closed:
            self._transport.resume_reading()
            self._transport.pause_reading()

    def release(self) -> None:
        """Take back one `hold`."""
        self._holds -= 1
        if self._holds == 0 and self._transport is not None:
            self._transport.resume_reading()

    def hung_up(self) -> bool:
        """Whether the peer is gone: while a connection is on hold, nothing else tells. Sockets only."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if self.closed or sock is None:
            return self.closed
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is None:
            self.connection_lost(None)
        else:
            self.flush()
            self._transport.close()
            self.closed = True

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        if self._transport is None:
            self.connection_lost(None)
        else:
            self._transport.abort()
            self.closed = True

    def peer(self) -> Peer | None:
        """Who is at the other end of a Unix socket; None elsewhere."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))

    def _wake(self) -> None:
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None
