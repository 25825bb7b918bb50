"""An asyncio transport with a write buffer, over whatever takes some bytes now and the rest later."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Iterable

Data = bytes | bytearray | memoryview


class BufferedTransport(asyncio.Transport):
    """What asyncio asks of a transport besides moving bytes; a subclass adds that.

    Args:
        protocol: Who reads and writes through it.
    """

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._buffer = bytearray()
        self._high = 1 << 16
        self._low = self._high // 4
        self._writing_paused = False
        self._reading_paused = False
        self._closing = False
        self._is_lost = False
        self._error: Exception | None = None

    @abc.abstractmethod
    def _transmit(self, data: memoryview) -> int:
        """Pass on what is taken now and return its length; when more is taken again, `_flush` is to be called."""

    @abc.abstractmethod
    def _read(self) -> None:
        """Reading is wanted (again)."""

    @abc.abstractmethod
    def _release(self) -> None:
        """The connection is over: give back what it stood on."""

    # What the protocol calls.

    def write(self, data: Data) -> None:
        """Send, now or as soon as the other side takes it."""
        if self._closing or not data:
            return
        view = memoryview(data)
        if not self._buffer:
            view = view[self._transmit(view) :]
        if not self._closing and len(view):
            self._buffer += view
            if len(self._buffer) > self._high and not self._writing_paused:
                self._writing_paused = True
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        """Send several pieces."""
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """At how many unsent bytes the protocol is paused, and resumed."""
        self._high = 1 << 16 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes not sent yet."""
        return len(self._buffer)

    def pause_reading(self) -> None:
        """Give the protocol no more for now."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Give the protocol what comes."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        """Whether the protocol is given what comes."""
        return not self._reading_paused and not self._closing

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Close once everything is sent."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._loop.call_soon(self._lose)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._buffer = bytearray()
        self._loop.call_soon(self._lose)

    # What the subclass calls.

    def _flush(self) -> None:
        """Send what has waited."""
        while self._buffer and not self._is_lost:
            with memoryview(self._buffer) as view:
                sent = self._transmit(view)
            if not sent:
                break
            del self._buffer[:sent]
        if self._writing_paused and len(self._buffer) <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._lose()

    def _end(self, error: Exception | None) -> None:
        """The other side is gone."""
        self._closing = True
        self._error = error
        self._buffer = bytearray()
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._release()
            self._protocol.connection_lost(self._error)
