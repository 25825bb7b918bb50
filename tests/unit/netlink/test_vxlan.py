from __future__ import annotations

import ipaddress

import pytest

from kata_py.netlink import vxlan, wire
from kata_py.netlink.rtnetlink import Link
from kata_py.netlink.vxlan import Vxlan

IPV4 = Vxlan(555000, ipaddress.ip_address("192.0.2.2"), 4789)
IPV6 = Vxlan(vxlan.MAX_VNI, ipaddress.ip_address("2001:db8::2"), 9000)
OVER_A_LINK = Vxlan(1, ipaddress.ip_address("fe80::2"), 4789, ipaddress.IPv6Address("fe80::1"), 7)


def link(kind: bytes, data: bytes) -> Link:
    return Link(7, "vxlan1", b"", 1500, 0, info=wire.encode_attributes([(1, kind + b"\0"), (2, data)]))


def test_a_tunnel_learns_nothing_and_its_port_has_the_networks_byte_order() -> None:
    values = wire.decode_attributes(vxlan.encode(IPV4))

    assert values == {1: wire.u32(555000), 2: bytes((192, 0, 2, 2)), 5: b"\0", 6: b"\0", 7: b"\0", 15: b"\x12\xb5"}
    assert wire.decode_attributes(vxlan.encode(IPV6))[16] == IPV6.remote.packed  # type: ignore[union-attr]


@pytest.mark.parametrize("tunnel", [IPV4, IPV6, OVER_A_LINK])
def test_a_tunnel_comes_out_of_its_link_as_it_went_in(tunnel: Vxlan) -> None:
    assert vxlan.tunnel(link(b"vxlan", vxlan.encode(tunnel))) == tunnel
    assert vxlan.tunnel(link(b"veth", b"")) is None
    assert vxlan.tunnel(Link(1, "eth0", b"", 1500, 0)) is None


def test_a_tunnel_to_nobody_in_particular_is_read_too() -> None:
    assert vxlan.decode(b"") == Vxlan(0, None, 0)


@pytest.mark.parametrize("tunnel", [IPV4._replace(vni=1 << 24), IPV4._replace(vni=-1), IPV4._replace(remote=None)])
def test_what_no_tunnel_can_have_is_refused(tunnel: Vxlan) -> None:
    with pytest.raises(ValueError, match=r"24 bits|no other end"):
        vxlan.encode(tunnel)


@pytest.mark.parametrize(("kind", "value"), [(1, b"1"), (2, b"123"), (15, b"1")])
def test_a_value_without_its_form_is_malformed(kind: int, value: bytes) -> None:
    with pytest.raises(wire.MalformedMessage):
        vxlan.decode(wire.attribute(kind, value))
