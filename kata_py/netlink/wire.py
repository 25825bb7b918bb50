"""Netlink messages and attributes, to bytes and back. No I/O.

Source: Linux `include/uapi/linux/netlink.h`, `Documentation/userspace-api/netlink/intro.rst`. Numbers have the
machine's byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Message types below those of a family.
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

# Flags of a message.
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NLM_F_CAPPED = 0x100  # of an answer: it does not hold the request but for its header
_NLM_F_ACK_TLVS = 0x200  # of an answer: attributes follow
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF  # without the flags for nesting and byte order

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_U32 = struct.Struct("=I")

MAX_VALUE = 0xFFFF - _ATTRIBUTE.size  # bytes in an attribute


class MalformedMessage(ValueError):
    """Bytes that are no netlink message, or no attributes."""


class Message(NamedTuple):
    """A message.

    Attributes:
        type: What it is; a family's types begin at 16.
        flags: NLM_F_*.
        sequence: The request's number, in its answers too.
        port: Whose request it is; 0 in notifications.
        payload: What follows the header.
    """

    type: int
    flags: int
    sequence: int
    port: int
    payload: bytes


def encode(message: Message) -> bytes:
    """A message as it is sent, padded."""
    length = _HEADER.size + len(message.payload)
    return _padded(_HEADER.pack(length, *message[:4]) + message.payload)


def decode(data: bytes) -> Iterator[Message]:
    """The messages of a datagram.

    Raises:
        MalformedMessage: A length does not fit.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise MalformedMessage(f"{len(data) - offset} bytes are no netlink message")
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise MalformedMessage(f"a netlink message of {length} bytes in {len(data) - offset}")
        yield Message(kind, flags, sequence, port, data[offset + _HEADER.size : offset + length])
        offset += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute as it is sent, padded.

    Raises:
        ValueError: The value is longer than an attribute can be.
    """
    if len(value) > MAX_VALUE:
        raise ValueError(f"{len(value)} bytes do not fit into a netlink attribute")
    return _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)


def encode_attributes(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Attributes as they are sent; those that are nested are an attribute's value."""
    return b"".join(attribute(kind, value) for kind, value in attributes)


def decode_attributes(data: bytes) -> dict[int, bytes]:
    """Values by type; the first counts, should there be more of one.

    Raises:
        MalformedMessage: A length does not fit.
    """
    found: dict[int, bytes] = {}
    offset = 0
    while len(data) - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise MalformedMessage(f"a netlink attribute of {length} bytes in {len(data) - offset}")
        found.setdefault(kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length])
        offset += _aligned(length)
    if data[offset:].strip(b"\0"):
        raise MalformedMessage(f"{len(data) - offset} bytes are no netlink attribute")
    return found


def u32(value: int) -> bytes:
    """A number as the value of an attribute."""
    return _U32.pack(value)


def to_u32(value: bytes) -> int:
    """The number that is an attribute's value.

    Raises:
        MalformedMessage: It is none.
    """
    if len(value) != _U32.size:
        raise MalformedMessage(f"{len(value)} bytes where a number has {_U32.size}")
    number: int = _U32.unpack(value)[0]
    return number


def outcome(message: Message) -> tuple[int, str]:
    """What an NLMSG_ERROR, or NLMSG_DONE, says: an errno, or 0 for success, and the kernel's words, if it has any.

    Raises:
        MalformedMessage: It has not that form.
    """
    payload = message.payload
    if len(payload) < _ERROR.size:
        if message.type == NLMSG_DONE:
            return 0, ""
        raise MalformedMessage(f"a netlink error of {len(payload)} bytes")
    number = -_ERROR.unpack_from(payload)[0]
    if not message.flags & _NLM_F_ACK_TLVS:
        return number, ""
    offset = _ERROR.size
    if message.type == NLMSG_ERROR:
        if len(payload) < offset + _HEADER.size:
            raise MalformedMessage("a netlink error without the request it is for")
        length = _HEADER.size if message.flags & _NLM_F_CAPPED else _HEADER.unpack_from(payload, offset)[0]
        offset += _aligned(length)
    words = decode_attributes(payload[offset:]).get(_NLMSGERR_ATTR_MSG, b"")
    return number, words.rstrip(b"\0").decode(errors="replace")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
