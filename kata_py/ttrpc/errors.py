"""What can go wrong, as one tree.

TtrpcError
├── ConnectError            the peer could not be reached
├── ListenError             the address could not be listened on
├── ConnectionClosed        the connection ended before the answer came
└── StatusError             the call was answered with a status other than OK
    └── MessageTooLong      the message does not fit into a frame; nothing was sent
"""

from __future__ import annotations

from kata_py.ttrpc.status import Code


class TtrpcError(Exception):
    """The root: everything this package raises on purpose."""


class ConnectError(TtrpcError):
    """The peer could not be reached; says where and why."""


class ListenError(TtrpcError):
    """The address could not be listened on; says which and why."""


class ConnectionClosed(TtrpcError):
    """The connection is gone; its cause is what ended it, if that was not in order.

    Whether a pending call took effect at the peer is unknown.
    """


class StatusError(TtrpcError):
    """A call's status: raised in a handler to answer it, raised by a client call that was answered so.

    Attributes:
        code: The code; for a number gRPC does not know, `UNKNOWN`.
        message: In words, for people.
        details: Serialised `google.protobuf.Any` messages, as they came.
    """

    def __init__(self, code: Code, message: str, details: tuple[bytes, ...] = ()) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.details = details


class MessageTooLong(StatusError):
    """A message does not fit into a frame; nothing was sent and the connection lives.

    Attributes:
        length: Bytes the frame's body would have.
        limit: Bytes it may have.
    """

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, f"message of {length} bytes exceeds the limit of {limit} bytes")
        self.length = length
        self.limit = limit
