"""The machine that an adaptor has made elsewhere, as something to be undone.

The `delete` command undoes it in a process that has seconds to live: one call by hand over a blocking socket.
Source: kata `protocols/hypervisor/hypervisor.proto`, containerd/ttrpc `PROTOCOL.md`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import socket

    from kata_py.ttrpc.envelope import Response

SERVICE = "hypervisor.Hypervisor"
_UNKNOWN, _NOT_FOUND = 2, 5  # status codes, written out: a record without peers is read without loading ttrpc
_TIMEOUT = 3.0  # seconds; an adaptor of ours answers at once, and deletes afterwards


@dataclass(frozen=True, slots=True)
class StopPeer:
    """A machine elsewhere, of the sandbox of that id, made by the adaptor that listens at the socket."""

    kind: ClassVar[str] = "stop-peer"
    socket: str
    sandbox_id: str

    def perform(self) -> None:
        """Have the adaptor delete it. One that does not know it has deleted it already.

        Raises:
            OSError: The adaptor does not answer, or refuses.
        """
        import socket  # and what follows: for the few records that have a peer

        from kata_py.ttrpc import envelope, frames

        identity = self.sandbox_id.encode()
        request = envelope.Request(
            SERVICE, "StopVM", b"\x0a" + _varint(len(identity)) + identity, timeout_nano=int(_TIMEOUT * 1e9)
        )
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(self.socket)
            connection.sendall(frames.encode(frames.REQUEST, 1, 0, b"".join(envelope.encode_request(request))))
            answer = _response(connection)
        if answer.code and not is_unknown(answer.code, answer.message):
            raise OSError(errno.EREMOTEIO, f"the adaptor does not stop the machine: {answer.message}", self.socket)


def is_unknown(code: int, message: str) -> bool:
    """Whether a refusal says that there is no such sandbox; upstream's adaptor says so in words alone."""
    return code == _NOT_FOUND or (code == _UNKNOWN and message.endswith("does not exist"))


def _response(connection: socket.socket) -> Response:
    from kata_py.ttrpc import envelope, frames

    reader = frames.FrameReader()
    while True:
        count = connection.recv_into(reader.space())
        if not count:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        for frame in reader.filled(count):
            if frame.type == frames.RESPONSE and frame.body is not None:
                try:
                    return envelope.decode_response(frame.body)
                except envelope.DecodeError as error:
                    raise OSError(errno.EBADMSG, str(error)) from error


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
