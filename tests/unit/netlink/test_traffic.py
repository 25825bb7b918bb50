from __future__ import annotations

import struct
from typing import cast

from kata_py.netlink import traffic, wire
from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.traffic import Filter

VA, VB = Link(3, "va", b"", 1500, 0), Link(2, "vb", b"", 1500, 0)

# What tc(8) sends for `tc filter add dev va parent ffff: protocol all pref 1 u32 match u32 0 0 action mirred egress
# redirect dev vb`, in parts: the header; the selector; the action's parameters. Captured on a machine whose numbers
# begin with the least significant byte; 0x0300 is ETH_P_ALL as it is on the wire.
HEADER = ("<B3xiIII", "0000000003000000000000000000ffff00030100")
SELECTOR = ("<BBBxHHhhIIIii", "0100010000000000000000000000000000000000000000000000000000000000")
MIRRED = ("<IIiiiiI", "00000000000000000400000000000000000000000100000002000000")


class Recorder:
    """A kernel that takes down what it is asked for, and lists what it is told to."""

    def __init__(self, *listed: bytes) -> None:
        self.changes: list[tuple[int, int, bytes]] = []
        self._listed = list(listed)

    def change(self, kind: int, flags: int, payload: bytes, _subject: str) -> None:
        self.changes.append((kind, flags, payload))

    def dump(self, _kind: int, _payload: bytes, _subject: str) -> list[bytes]:
        return self._listed


def native(captured: tuple[str, str]) -> bytes:
    """Captured bytes with the numbers in this machine's order."""
    fields, digits = captured
    return struct.pack("=" + fields[1:], *struct.unpack(fields, bytes.fromhex(digits)))


def test_a_redirection_is_what_tc_makes_of_it() -> None:
    kernel = Recorder()

    traffic.redirect(cast(Rtnetlink, kernel), VA, VB)

    ((kind, flags, payload),) = kernel.changes
    assert (kind, flags) == (44, 0x600)
    header = struct.unpack("=B3xiIII", payload[:20])
    expected = struct.unpack("=B3xiIII", native(HEADER))
    assert header[:4] == expected[:4]
    assert header[4] >> 16 == 1
    assert struct.pack("=H", header[4] & 0xFFFF) == b"\0\3"
    values = wire.decode_attributes(payload[20:])
    assert values[1] == b"u32\0"
    options = wire.decode_attributes(values[2])
    assert options[5] == native(SELECTOR)
    action = wire.decode_attributes(wire.decode_attributes(options[7])[1])
    assert action[1] == b"mirred\0"
    assert wire.decode_attributes(action[2])[2] == native(MIRRED)


def test_a_discipline_is_what_tc_makes_of_it() -> None:
    kernel = Recorder()

    traffic.add_ingress(cast(Rtnetlink, kernel), VB)
    traffic.delete_ingress(cast(Rtnetlink, kernel), VB)

    message = struct.pack("=B3xiIII", 0, 2, 0xFFFF0000, 0xFFFFFFF1, 0)
    assert kernel.changes == [(36, 0x600, message + wire.attribute(1, b"ingress\0")), (38 - 1, 0, message)]


def test_filters_are_told_apart_by_what_they_do() -> None:
    kernel = Recorder()
    traffic.redirect(cast(Rtnetlink, kernel), VA, VB)
    redirection = kernel.changes[0][2]
    table = redirection[:20] + wire.attribute(1, b"u32\0") + wire.attribute(2, wire.attribute(3, bytes(4)))
    bpf = redirection[:20] + wire.attribute(1, b"bpf\0") + wire.attribute(2, b"")

    assert traffic.filters(cast(Rtnetlink, Recorder(table, redirection, bpf)), VA) == [
        Filter("u32", 2),
        Filter("bpf", None),
    ]
