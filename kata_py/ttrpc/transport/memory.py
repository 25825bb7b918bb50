"""Two ends of a byte stream in one event loop: no socket, but the same limits and the same order of events."""

from __future__ import annotations

import asyncio
from typing import Final

from kata_py.ttrpc.transport.buffered import BufferedTransport

_CAPACITY: Final = 1 << 16  # bytes under way in one direction, as in a socket's buffer


def join(one: asyncio.BufferedProtocol, other: asyncio.BufferedProtocol) -> None:
    """Connect two protocols with each other."""
    here, there = MemoryTransport(one), MemoryTransport(other)
    here.peer, there.peer = there, here
    one.connection_made(here)
    other.connection_made(there)


class MemoryTransport(BufferedTransport):
    """One end.

    Attributes:
        peer: The other end.
    """

    peer: MemoryTransport

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__(protocol)
        self._arrived = bytearray()
        self._peer_closed = False
        self._read_due = False

    def _transmit(self, data: memoryview) -> int:
        return self.peer.arrive(data)

    def arrive(self, data: memoryview) -> int:
        """The peer sends; returns how much of it fits."""
        if self._is_lost:
            return len(data)  # as into a socket whose peer has just gone
        part = data[: _CAPACITY - len(self._arrived)]
        self._arrived += part
        self._read_soon()
        return len(part)

    def _read_soon(self) -> None:
        if not self._read_due:
            self._read_due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_due = False
        while self._arrived and not self._reading_paused and not self._closing:
            space = self._protocol.get_buffer(-1)
            assert isinstance(space, memoryview)
            count = min(len(space), len(self._arrived))
            space[:count] = self._arrived[:count]
            del self._arrived[:count]
            self._protocol.buffer_updated(count)
        if self._closing:
            self._arrived.clear()
        if not self._arrived and self._peer_closed:
            self._end(None)
        elif len(self._arrived) < _CAPACITY:
            self.peer.taken()

    def taken(self) -> None:
        """The peer has room again."""
        self._flush()

    def hung_up(self) -> None:
        """The peer is gone; what came before is read first."""
        self._peer_closed = True
        self._read_soon()

    def _release(self) -> None:
        self.peer.hung_up()
