from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.netlink import wire
from kata_py.netlink.wire import MalformedMessage, Message

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
MESSAGES = st.builds(Message, U16, U16, U32, U32, st.binary(max_size=200))
ATTRIBUTES = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=200))

# What ip(8) sends for `ip link set va mtu 1400` and `ip addr add 192.0.2.2/24 dev va`, and what a kernel answers when
# an MTU is too small: fields, and bytes captured on a machine whose numbers begin with the least significant one.
SET_MTU = (
    "IHHII BxHiII HHI",
    "28000000100005000000000100000000 00000000030000000000000000000000 0800040078050000",
)
ADD_ADDRESS = (
    "IHHII BBBBI HH4s HH4s",
    "2800000014000506de29096b00000000 0218000003000000 08000200c0000202 08000100c0000202",
)
REFUSAL = (
    "i IHHII HH29s3x",
    "eaffffff 28000000100005000200000000000000210001006d7475206c657373207468616e20646576696365206d696e696d756d00000000",
)


def native(captured: tuple[str, str]) -> bytes:
    """Captured bytes with the numbers in this machine's order."""
    fields, digits = captured
    return struct.pack(f"={fields}", *struct.unpack(f"<{fields}", bytes.fromhex(digits)))


@given(st.lists(MESSAGES))
def test_messages_in_a_datagram_come_out_as_they_went_in(messages: list[Message]) -> None:
    datagram = b"".join(wire.encode(message) for message in messages)

    assert len(datagram) % 4 == 0
    assert list(wire.decode(datagram)) == messages


@given(ATTRIBUTES)
def test_attributes_come_out_as_they_went_in(attributes: dict[int, bytes]) -> None:
    assert wire.decode_attributes(wire.encode_attributes(attributes.items())) == attributes


@given(ATTRIBUTES, st.integers(1, 0x3FFF))
def test_attributes_nest(attributes: dict[int, bytes], kind: int) -> None:
    inner = wire.encode_attributes(attributes.items())

    outer = wire.decode_attributes(wire.attribute(kind | 0x8000, inner))

    assert wire.decode_attributes(outer[kind]) == attributes


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_malformed(data: bytes) -> None:
    try:
        messages = list(wire.decode(data))
    except MalformedMessage:
        return
    assert sum(16 + len(message.payload) for message in messages) <= len(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_attributes_or_malformed(data: bytes) -> None:
    try:
        attributes = wire.decode_attributes(data)
    except MalformedMessage:
        return
    assert sum(4 + len(value) for value in attributes.values()) <= len(data)


@given(st.binary(max_size=100), U16, st.sampled_from([wire.NLMSG_ERROR, wire.NLMSG_DONE]))
def test_any_answer_has_an_outcome_or_is_malformed(payload: bytes, flags: int, kind: int) -> None:
    try:
        number, words = wire.outcome(Message(kind, flags, 1, 0, payload))
    except MalformedMessage:
        return
    assert isinstance(number, int)
    assert isinstance(words, str)


@pytest.mark.parametrize("cut", [1, 8, 17])
def test_a_datagram_that_is_cut_short_is_malformed(cut: int) -> None:
    datagram = wire.encode(Message(16, 0, 1, 0, b"12345678"))

    with pytest.raises(MalformedMessage):
        list(wire.decode(datagram[:-cut]))


def test_a_value_that_no_attribute_can_hold_is_refused() -> None:
    assert len(wire.attribute(1, bytes(wire.MAX_VALUE))) == 0x10000

    with pytest.raises(ValueError, match="65532 bytes do not fit"):
        wire.attribute(1, bytes(wire.MAX_VALUE + 1))


def test_the_first_of_several_values_counts() -> None:
    assert wire.decode_attributes(wire.encode_attributes([(1, b"a"), (1, b"b")])) == {1: b"a"}


def test_a_number_has_four_bytes() -> None:
    assert wire.to_u32(wire.u32(0xC0000202)) == 0xC0000202

    with pytest.raises(MalformedMessage, match="2 bytes where a number has 4"):
        wire.to_u32(b"12")


def test_messages_are_encoded_as_ip_does_it() -> None:
    mtu = wire.attribute(4, wire.u32(1400))
    head = struct.pack("=BxHiII", 0, 0, 3, 0, 0)
    assert wire.encode(Message(16, 5, 0x01000000, 0, head + mtu)) == native(SET_MTU)

    (decoded,) = wire.decode(native(ADD_ADDRESS))
    assert decoded[:4] == (20, 0x605, 0x6B0929DE, 0)
    address = bytes((192, 0, 2, 2))
    assert wire.decode_attributes(decoded.payload[8:]) == {2: address, 1: address}


def test_a_refusal_has_the_kernels_words() -> None:
    capped_with_attributes = 0x300
    refusal = Message(wire.NLMSG_ERROR, capped_with_attributes, 2, 0, native(REFUSAL))

    assert wire.outcome(refusal) == (errno.EINVAL, "mtu less than device minimum")
    assert wire.outcome(refusal._replace(flags=0x100)) == (errno.EINVAL, "")


def test_the_end_of_a_list_is_no_failure_even_without_a_number() -> None:
    assert wire.outcome(Message(wire.NLMSG_DONE, 2, 1, 0, b"")) == (0, "")
    assert wire.outcome(Message(wire.NLMSG_DONE, 2, 1, 0, bytes(4))) == (0, "")
