"""The two ends of a ttrpc connection as state machines: bytes in, events out, bytes to send. No I/O.

The owner puts received bytes into `space()` and calls `received()`, acts on the events it returns, and after
that or any other call sends what `data_to_send()` gives, in order. Whatever bytes come in, nothing raises: a
client's fault is answered on the stream it was made on, a server's fails that stream's call, and the connection
goes on. Source: containerd/ttrpc `PROTOCOL.md`, `server.go`, `client.go`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from kata_py.ttrpc import envelope
from kata_py.ttrpc.envelope import DecodeError, Request, Response
from kata_py.ttrpc.errors import ConnectionClosed, MessageTooLong
from kata_py.ttrpc.frames import (
    DATA,
    HEADER,
    MESSAGE_LENGTH_MAX,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    Frame,
    FrameReader,
)
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

JOIN_MAX: Final = 1 << 14
"""Payloads up to this length are copied into their frame; longer ones are sent from where they lie."""

_STREAM_ID_MAX: Final = (1 << 32) - 1


class RequestReceived(NamedTuple):
    """A client began a call.

    Attributes:
        stream_id: Its stream; the answer goes there.
        request: What it asks.
        flags: 0 for a unary call; `REMOTE_OPEN` or `REMOTE_CLOSED` for a streaming one.
    """

    stream_id: int
    request: Request
    flags: int


class ResponseReceived(NamedTuple):
    """A call of ours was answered, which ends its stream."""

    stream_id: int
    response: Response


class StreamRefused(NamedTuple):
    """A client broke the rules on an active stream: that was answered and the stream ended, its handler runs on."""

    stream_id: int
    code: Code
    message: str


class MessageReceived(NamedTuple):
    """A message on a stream, or its end, or both.

    Attributes:
        stream_id: The stream.
        message: The message; None when the frame only closes.
        closed: Whether the peer will send no more on this stream.
    """

    stream_id: int
    message: bytes | None
    closed: bool


ServerEvent = RequestReceived | MessageReceived | StreamRefused
ClientEvent = ResponseReceived | MessageReceived


class Connection:
    """What both ends share: reading frames and queueing them.

    Args:
        limit: Bytes a frame's body may have, in either direction.

    Attributes:
        queued: Bytes waiting in `data_to_send`, roughly.
    """

    def __init__(self, limit: int = MESSAGE_LENGTH_MAX) -> None:
        self._reader = FrameReader(limit)
        self._limit = limit
        self._out: list[bytes] = []
        self._debug = logger.isEnabledFor(logging.DEBUG)
        self.queued = 0

    @property
    def mid_frame(self) -> bool:
        """Whether the peer is in the middle of a frame."""
        return self._reader.mid_frame

    def space(self) -> memoryview:
        """Where the next received bytes go; never empty."""
        return self._reader.space()

    def data_to_send(self) -> list[bytes]:
        """What is to be sent now, in order; each piece is handed out once."""
        out, self._out = self._out, []
        self.queued = 0
        return out

    def _frames(self, count: int) -> list[Frame]:
        frames = self._reader.filled(count)
        if self._debug:
            for frame in frames:
                logger.debug("< %s", frame)
        return frames

    def _send(self, frame_type: int, stream_id: int, flags: int, pieces: envelope.Pieces) -> None:
        length = sum(map(len, pieces))
        if length > self._limit:
            raise MessageTooLong(length, self._limit)
        self._queue(frame_type, stream_id, flags, pieces, length)

    def _queue(self, frame_type: int, stream_id: int, flags: int, pieces: envelope.Pieces, length: int) -> None:
        head, payload, tail = pieces
        self.queued += HEADER.size + length
        if self._debug:
            logger.debug("> %s", Frame(stream_id, frame_type, flags, None, length))
        header = HEADER.pack(length, stream_id, frame_type, flags)
        if len(payload) <= JOIN_MAX:
            self._out.append(b"".join((header, head, payload, tail)))
        else:
            self._out += (header + head, payload, tail) if tail else (header + head, payload)

    def _send_data(self, stream_id: int, message: bytes | None, closed: bool) -> None:
        flags = (REMOTE_CLOSED if closed else 0) | (NO_DATA if message is None else 0)
        self._send(DATA, stream_id, flags, (b"", message or b"", b""))


class ServerConnection(Connection):
    """The server's end."""

    def __init__(self, limit: int = MESSAGE_LENGTH_MAX) -> None:
        super().__init__(limit)
        self._last_id = 0
        self._streams: dict[int, bool] = {}  # active streams; True while the client may send data

    def received(self, count: int) -> list[ServerEvent]:
        """Take notice of bytes put into `space()`; the owner then sends `data_to_send()`."""
        events: list[ServerEvent] = []
        for frame in self._frames(count):
            if frame.type == REQUEST:
                self._request_received(frame, events)
            elif frame.type == DATA:
                self._data_received(frame, events)
            # Others are ignored. Never answer a response: two servers facing each other would do so for ever.
        return events

    def respond(self, stream_id: int, response: Response) -> None:
        """Answer a call and end its stream.

        An answer that does not fit into a frame becomes `RESOURCE_EXHAUSTED`; one for a stream that has
        ended already is dropped.
        """
        if self._streams.pop(stream_id, None) is None:
            return
        try:
            self._send(RESPONSE, stream_id, 0, envelope.encode_response(response))
        except MessageTooLong as error:
            self._send_status(stream_id, error.code, error.message)

    def send_message(self, stream_id: int, message: bytes) -> None:
        """Send a message on a stream; dropped when the stream has ended.

        Raises:
            MessageTooLong: It does not fit into a frame; the stream lives.
        """
        if stream_id in self._streams:
            self._send_data(stream_id, message, closed=False)

    def finish(self, stream_id: int) -> None:
        """End a stream successfully after its last message, as servers do whose method returns a stream."""
        if self._streams.pop(stream_id, None) is not None:
            self._send_data(stream_id, None, closed=True)

    def _request_received(self, frame: Frame, events: list[ServerEvent]) -> None:
        stream_id = frame.stream_id
        if frame.body is None:
            self._refuse_long(frame, events)
        elif stream_id % 2 == 0:
            self._refuse(stream_id, "a client's stream id must be odd", events)
        elif stream_id <= self._last_id:
            self._refuse(stream_id, f"stream id {stream_id} is not above the last one, {self._last_id}", events)
        else:
            self._last_id = stream_id
            try:
                request = envelope.decode_request(frame.body)
            except DecodeError as error:
                self._refuse(stream_id, f"cannot decode the request: {error}", events)
                return
            self._streams[stream_id] = bool(frame.flags & REMOTE_OPEN)
            events.append(RequestReceived(stream_id, request, frame.flags & (REMOTE_OPEN | REMOTE_CLOSED)))

    def _data_received(self, frame: Frame, events: list[ServerEvent]) -> None:
        stream_id = frame.stream_id
        if frame.body is None:
            self._refuse_long(frame, events)
        elif stream_id % 2 == 0:
            self._refuse(stream_id, "a client's stream id must be odd", events)
        elif not self._streams.get(stream_id):
            self._refuse(stream_id, f"stream {stream_id} is not open for data", events)
        else:
            closed = bool(frame.flags & REMOTE_CLOSED)
            self._streams[stream_id] = not closed
            events.append(MessageReceived(stream_id, _message(frame), closed))

    def _refuse_long(self, frame: Frame, events: list[ServerEvent]) -> None:
        error = MessageTooLong(frame.length, self._limit)
        self._refuse(frame.stream_id, error.message, events, error.code)

    def _refuse(
        self, stream_id: int, message: str, events: list[ServerEvent], code: Code = Code.INVALID_ARGUMENT
    ) -> None:
        if self._streams.pop(stream_id, None) is not None:
            events.append(StreamRefused(stream_id, code, message))
        self._send_status(stream_id, code, message)

    def _send_status(self, stream_id: int, code: Code, message: str) -> None:
        pieces = envelope.encode_response(Response(b"", code, message))
        self._queue(RESPONSE, stream_id, 0, pieces, len(pieces[0]))  # fits always: our own words are few


class ClientConnection(Connection):
    """The client's end.

    Args:
        limit: Bytes a frame's body may have, in either direction.
        first_id: The first stream id, odd.
    """

    def __init__(self, limit: int = MESSAGE_LENGTH_MAX, first_id: int = 1) -> None:
        super().__init__(limit)
        self._next_id = first_id
        self._streams: dict[int, bool] = {}  # active streams; True for those that carry data

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout_nano: int = 0,
        metadata: Mapping[str, str] | None = None,
        flags: int = 0,
    ) -> int:
        """Begin a call; returns its stream id.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            payload: The serialised request message.
            timeout_nano: Nanoseconds that the caller will wait; 0 is without end.
            metadata: Sent along.
            flags: 0 for a unary call; `REMOTE_OPEN` when data follows, `REMOTE_CLOSED` when it only comes back.

        Raises:
            MessageTooLong: It does not fit into a frame.
            ConnectionClosed: All stream ids are used up; a new connection has fresh ones.
        """
        stream_id = self._next_id
        if stream_id > _STREAM_ID_MAX:
            raise ConnectionClosed("all stream ids of this connection are used up")
        pairs = tuple(metadata.items()) if metadata else ()
        pieces = envelope.encode_request(Request(service, method, payload, timeout_nano, pairs))
        self._send(REQUEST, stream_id, flags, pieces)
        self._next_id += 2
        self._streams[stream_id] = flags != 0
        return stream_id

    def send_message(self, stream_id: int, message: bytes | None, *, closed: bool = False) -> None:
        """Send a message on a stream, or close our side of it, or both; dropped when the stream has ended.

        Raises:
            MessageTooLong: It does not fit into a frame; the stream lives.
        """
        if stream_id in self._streams:
            self._send_data(stream_id, message, closed)

    def abandon(self, stream_id: int) -> None:
        """Stop caring for a call. ttrpc has no frame to say so: what still comes for it is ignored."""
        self._streams.pop(stream_id, None)

    def received(self, count: int) -> list[ClientEvent]:
        """Take notice of bytes put into `space()`."""
        events: list[ClientEvent] = []
        for frame in self._frames(count):
            streaming = self._streams.get(frame.stream_id)
            if streaming is None or frame.type not in (RESPONSE, DATA):
                pass  # a late answer, mostly
            elif frame.body is None:
                error = MessageTooLong(frame.length, self._limit)
                self._end(events, frame, Response(b"", error.code, error.message))
            elif frame.type == RESPONSE:
                self._end(events, frame, _response(frame.body))
            elif not streaming:
                self._end(events, frame, Response(b"", Code.INTERNAL, "the server sent data on a unary stream"))
            else:
                closed = bool(frame.flags & REMOTE_CLOSED)
                if closed:
                    self._streams.pop(frame.stream_id, None)
                events.append(MessageReceived(frame.stream_id, _message(frame), closed))
        return events

    def _end(self, events: list[ClientEvent], frame: Frame, response: Response) -> None:
        self._streams.pop(frame.stream_id, None)
        events.append(ResponseReceived(frame.stream_id, response))


def _message(frame: Frame) -> bytes | None:
    return None if frame.flags & NO_DATA or frame.body is None else bytes(frame.body)


def _response(body: bytes | bytearray) -> Response:
    try:
        return envelope.decode_response(body)
    except DecodeError as error:
        return Response(b"", Code.INTERNAL, f"cannot decode the response: {error}")
