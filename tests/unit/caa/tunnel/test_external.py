from __future__ import annotations

import socket

import pytest

from kata_caa.errors import TunnelError
from kata_caa.tunnel.external import secondary, way_out
from kata_py.netlink.rtnetlink import Address, Link, Route


def v4(text: str) -> bytes:
    return socket.inet_aton(text)


def link(number: int, name: str) -> Link:
    return Link(number, name, bytes(6), 1500, 1)


LINKS = [link(1, "lo"), link(2, "ens5"), link(3, "docker0"), link(4, "ens6"), link(5, "ens7")]
ADDRESSES = [
    (1, Address(socket.AF_INET, v4("127.0.0.1"), 8)),
    (2, Address(socket.AF_INET, v4("10.0.0.2"), 24)),
    (3, Address(socket.AF_INET, v4("10.0.0.3"), 24)),
    (4, Address(socket.AF_INET, v4("10.0.1.4"), 24)),
    (5, Address(socket.AF_INET, v4("10.0.0.5"), 24)),
]
FIRST = Route(socket.AF_INET, gateway=v4("10.0.0.1"), link=2, metric=100)
OWN = Route(socket.AF_INET, gateway=v4("10.0.1.1"), link=4, metric=200)


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


GATEWAY_6 = v6("fe80::1")
ADDRESSES_6 = [
    (2, Address(socket.AF_INET6, v6("fd00::2"), 64)),
    (4, Address(socket.AF_INET6, v6("fe80::4"), 64)),
    (4, Address(socket.AF_INET6, v6("fd00::4"), 64)),
]
FIRST_6 = Route(socket.AF_INET6, gateway=v6("fd00::1"), link=2, metric=100)
OWN_6 = Route(socket.AF_INET6, gateway=GATEWAY_6, link=4, metric=200)


def test_an_interface_with_a_default_route_of_its_own_is_taken() -> None:
    found = secondary(LINKS, ADDRESSES, [OWN, FIRST], 2)
    assert (found.link.name, found.gateway) == ("ens6", v4("10.0.1.1"))


def test_one_in_the_primary_ones_network_shares_its_gateway() -> None:
    found = secondary(LINKS, ADDRESSES, [FIRST], 2)
    assert (found.link.name, found.gateway) == ("ens7", v4("10.0.0.1"))


def test_a_way_out_for_ipv6_is_no_link_local_address_and_the_interface_s_own_gateway_or_the_primary_s() -> None:
    assert way_out(LINKS[3], socket.AF_INET6, ADDRESSES_6, [OWN_6, FIRST_6]) == (ADDRESSES_6[2][1], GATEWAY_6)
    assert way_out(LINKS[3], socket.AF_INET6, ADDRESSES_6, [FIRST_6]) == (ADDRESSES_6[2][1], FIRST_6.gateway)
    assert way_out(LINKS[3], socket.AF_INET6, ADDRESSES_6, []) is None
    assert way_out(LINKS[3], socket.AF_INET6, ADDRESSES_6[:2], [OWN_6, FIRST_6]) is None


def test_the_tunnels_own_interface_stays() -> None:
    assert secondary(LINKS, ADDRESSES, [FIRST, OWN], 4).link.name == "ens7"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(TunnelError, match="no default route"):
        secondary(LINKS, ADDRESSES, [], 2)
    with pytest.raises(TunnelError, match="no second interface"):
        secondary(LINKS[:3], ADDRESSES, [FIRST], 2)
