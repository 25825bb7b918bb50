"""Frames: the ten-byte header and what cuts a byte stream into them. No I/O.

Source: containerd/ttrpc `PROTOCOL.md`, `channel.go`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MESSAGE_LENGTH_MAX: Final = 4 << 20
"""Bytes a frame's body may have."""

HEADER: Final = struct.Struct(">IIBB")
"""Length of the body, stream id, type, flags."""

# Types. Others are reserved and ignored.
REQUEST: Final = 0x01
RESPONSE: Final = 0x02
DATA: Final = 0x03

# Flags.
REMOTE_CLOSED: Final = 0x01  # the sender will send no more on this stream
REMOTE_OPEN: Final = 0x02  # on a request: data frames follow
NO_DATA: Final = 0x04  # no message in this frame; without it, an empty body is an empty message

_BUFFER_SIZE: Final = 1 << 16
_TYPE_NAMES: Final = {REQUEST: "request", RESPONSE: "response", DATA: "data"}


class Frame(NamedTuple):
    """One frame.

    Attributes:
        stream_id: The stream.
        type: `REQUEST`, `RESPONSE`, `DATA`, or a number not yet assigned.
        flags: `REMOTE_CLOSED`, `REMOTE_OPEN` and `NO_DATA`, or-ed.
        body: The body, or None when it was longer than the limit and so is dropped.
        length: The length that the header states.
    """

    stream_id: int
    type: int
    flags: int
    body: bytes | bytearray | None
    length: int

    def __str__(self) -> str:
        """For logs: `stream 3 request, 120 bytes`."""
        name = _TYPE_NAMES.get(self.type, f"type {self.type:#04x}")
        flags = f" flags {self.flags:#04x}" if self.flags else ""
        return f"stream {self.stream_id} {name}{flags}, {self.length} bytes"


def encode(frame_type: int, stream_id: int, flags: int, body: bytes) -> bytes:
    """One frame as bytes; for tests and tools, as the connections put theirs together without copying."""
    return HEADER.pack(len(body), stream_id, frame_type, flags) + body


class FrameReader:
    """Cuts a byte stream into frames, whatever the pieces it arrives in.

    The reader owns the memory: bytes are put into `space()`, then `filled()` is told how many. So a socket
    receives straight into place, and a body longer than the standing buffer is copied nowhere.

    Args:
        limit: Bytes a body may have; a longer one is dropped as it arrives.
    """

    def __init__(self, limit: int = MESSAGE_LENGTH_MAX) -> None:
        self.limit = limit
        self._view = memoryview(bytearray(_BUFFER_SIZE))
        self._end = 0  # bytes in the standing buffer
        self._drop = 0  # bytes of an overlong body still to come
        self._header = (0, 0, 0, 0)  # of the long body below
        self._body = bytearray()  # a long body, while it arrives
        self._rest: memoryview | None = None  # its part that is still missing

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun and not ended: an end of file now is a truncation."""
        return self._end > 0 or self._drop > 0 or self._rest is not None

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._view[self._end :] if self._rest is None else self._rest

    def filled(self, count: int) -> list[Frame]:
        """Take notice of bytes put into `space()`; returns the frames that they complete.

        Args:
            count: How many, from the start of what `space()` last returned.
        """
        if self._rest is not None:
            return self._fill_long(count)
        frames: list[Frame] = []
        view = self._view
        position = 0
        end = self._end + count
        if self._drop:
            position = min(self._drop, end)
            self._drop -= position
        while end - position >= 10:
            length, stream_id, frame_type, flags = HEADER.unpack_from(view, position)
            start = position + 10
            stop = start + length
            if length > self.limit:
                frames.append(Frame(stream_id, frame_type, flags, None, length))
                position = min(stop, end)
                self._drop = stop - position
            elif stop <= end:
                frames.append(Frame(stream_id, frame_type, flags, bytes(view[start:stop]), length))
                position = stop
            elif 10 + length > len(view):
                self._begin_long(length, stream_id, frame_type, flags, view[start:end])
                position = end
            else:
                break
        self._end = end - position
        if position and self._end:
            view[: self._end] = bytes(view[position:end])
        return frames

    def _begin_long(self, length: int, stream_id: int, frame_type: int, flags: int, head: memoryview) -> None:
        self._header = (length, stream_id, frame_type, flags)
        self._body = bytearray(length)
        self._body[: len(head)] = head
        self._rest = memoryview(self._body)[len(head) :]

    def _fill_long(self, count: int) -> list[Frame]:
        assert self._rest is not None
        self._rest = self._rest[count:]
        if len(self._rest):
            return []
        length, stream_id, frame_type, flags = self._header
        frame = Frame(stream_id, frame_type, flags, self._body, length)
        self._body, self._rest = bytearray(), None
        return [frame]
