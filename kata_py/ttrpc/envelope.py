"""The messages that every call travels in: Request and Response, written and read by hand.

Four fixed messages do not justify loading protobuf, which costs a guest more than the rest of its agent's
start. Unknown fields are skipped, fields out of order and repeated ones are taken as protobuf takes them.
Source: containerd/ttrpc `request.proto`, google `rpc/status.proto`, protobuf's encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5

_FIELD_NUMBER_MAX: Final = (1 << 29) - 1
FIELDS_MAX: Final = 256
"""Fields that a message may have: metadata, mostly. A frame has room for millions, which would take seconds to read."""

_UINT64: Final = (1 << 64) - 1


class DecodeError(ValueError):
    """Bytes that are no message; never leaves the package."""


class Request(NamedTuple):
    """A call.

    Attributes:
        service: Full protobuf name, such as `containerd.task.v2.Task`.
        method: Bare name, such as `State`.
        payload: The serialised request message.
        timeout_nano: Nanoseconds the client will wait; 0 is without end.
        metadata: Pairs; keys may repeat.
    """

    service: str
    method: str
    payload: bytes = b""
    timeout_nano: int = 0
    metadata: tuple[tuple[str, str], ...] = ()


class Response(NamedTuple):
    """A call's answer.

    Attributes:
        payload: The serialised response message.
        code: The status code's number; 0 is OK, and so is an absent status.
        message: The status in words.
        details: Serialised `google.protobuf.Any` messages.
    """

    payload: bytes = b""
    code: int = 0
    message: str = ""
    details: tuple[bytes, ...] = ()


Pieces = tuple[bytes, bytes, bytes]
"""A message in three parts of which the middle one is the payload, untouched."""


def encode_request(request: Request) -> Pieces:
    """A request as bytes around its payload."""
    service, method, payload, timeout_nano, metadata = request
    head = _bytes_field(b"\x0a", service.encode()) + _bytes_field(b"\x12", method.encode())
    tail = b""
    if timeout_nano:
        tail = b"\x20" + _varint(timeout_nano & _UINT64)
    for key, value in metadata:
        pair = _bytes_field(b"\x0a", key.encode()) + _bytes_field(b"\x12", value.encode())
        tail += b"\x2a" + _varint(len(pair)) + pair
    if payload:
        head += b"\x1a" + _varint(len(payload))
    return head, payload, tail


def encode_response(response: Response) -> Pieces:
    """A response as bytes around its payload. Its status is always present, as the Rust client expects."""
    payload, code, message, details = response
    if code or message or details:
        status = b"\x08" + _varint(code & _UINT64) if code else b""
        # An error's text may hold a file name that is no UTF-8.
        status += _bytes_field(b"\x12", message.encode(errors="backslashreplace"))
        status += b"".join(b"\x1a" + _varint(len(detail)) + detail for detail in details)
        head = b"\x0a" + _varint(len(status)) + status
    else:
        head = b"\x0a\x00"
    if payload:
        head += b"\x12" + _varint(len(payload))
    return head, payload, b""


def decode_request(data: bytes | bytearray) -> Request:
    """Read a request.

    Raises:
        DecodeError: The bytes are not a Request.
    """
    service = method = ""
    payload = b""
    timeout_nano = 0
    metadata: list[tuple[str, str]] = []
    for number, value in _fields(data):
        if isinstance(value, int):
            if number == 4:
                timeout_nano = _int64(value)
        elif number == 1:
            service = _text(value)
        elif number == 2:
            method = _text(value)
        elif number == 3:
            payload = bytes(value)
        elif number == 5:
            metadata.append(_decode_pair(value))
    return Request(service, method, payload, timeout_nano, tuple(metadata))


def decode_target(data: bytes | bytearray) -> tuple[str, str]:
    """The service and the method of a request; its payload is not touched.

    Raises:
        DecodeError: The bytes are not a Request.
    """
    service = method = ""
    for number, value in _fields(data):
        if number == 1 and not isinstance(value, int):
            service = _text(value)
        elif number == 2 and not isinstance(value, int):
            method = _text(value)
    return service, method


def decode_response(data: bytes | bytearray) -> Response:
    """Read a response.

    Raises:
        DecodeError: The bytes are not a Response.
    """
    payload = b""
    code = 0
    message = ""
    details: list[bytes] = []
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 2:
            payload = bytes(value)
        elif number == 1 and len(value):
            code, message = _decode_status(value, code, message, details)
    return Response(payload, code, message, tuple(details))


def _decode_status(data: memoryview, code: int, message: str, details: list[bytes]) -> tuple[int, str]:
    for number, value in _fields(data):
        if isinstance(value, int):
            if number == 1:
                code = _int32(value)
        elif number == 2:
            message = _text(value)
        elif number == 3:
            details.append(bytes(value))
    return code, message


def _decode_pair(data: memoryview) -> tuple[str, str]:
    key = value = ""
    for number, field in _fields(data):
        if isinstance(field, int):
            continue
        if number == 1:
            key = _text(field)
        elif number == 2:
            value = _text(field)
    return key, value


def _fields(data: bytes | bytearray | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message that are varints or have a length; those of fixed width are skipped."""
    view = memoryview(data)
    end = len(view)
    position = 0
    for _ in range(FIELDS_MAX):
        if position >= end:
            return
        tag, position = _read_varint(view, position)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _FIELD_NUMBER_MAX:
            raise DecodeError(f"field number {number}")
        if wire_type == _LENGTH:
            length, position = _read_varint(view, position)
            start, position = position, position + length
            if position <= end:
                yield number, view[start:position]
        elif wire_type == _VARINT:
            value, position = _read_varint(view, position)
            yield number, value
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:  # groups, which no message here ever had, and what is not assigned
            raise DecodeError(f"wire type {wire_type}")
        if position > end:
            raise DecodeError("a field reaches beyond the message")
    if position < end:
        raise DecodeError(f"a message of more than {FIELDS_MAX} fields")


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    try:
        value = view[position]
        if value < 0x80:  # nearly always
            return value, position + 1
        value &= 0x7F
        for shift in range(7, 70, 7):
            position += 1
            byte = view[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _UINT64, position + 1
    except IndexError:
        raise DecodeError("the message ends within a number") from None
    raise DecodeError("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(tag: bytes, value: bytes) -> bytes:
    return tag + _varint(len(value)) + value if value else b""


def _text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise DecodeError("a string that is not UTF-8") from None


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def fold(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Metadata by key, keys in lower case, values in the order they came. Source: ttrpc `metadata.go`."""
    folded: dict[str, list[str]] = {}
    for key, value in pairs:
        folded.setdefault(key.lower(), []).append(value)
    return folded
