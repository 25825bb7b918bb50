"""What the kernel is told of a WireGuard link; that it takes it is shown where it has one (tests/functional/caa)."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from kata_py.netlink import wire, wireguard
from kata_py.netlink.generic import Generic
from kata_py.netlink.wireguard import Device, Endpoint, Peer

PEER = Peer(
    b"u" * 32, b"s" * 32, Endpoint(ipaddress.ip_address("192.0.2.2"), 51820), ipaddress.IPv6Address("fe80::2"), 25
)
DEVICE = Device(b"p" * 32, 51821, PEER)


def peer_of(device: Device) -> dict[int, bytes]:
    return wire.decode_attributes(wire.decode_attributes(wire.decode_attributes(wireguard.encode(7, device))[8])[0])


def test_a_device_has_one_peer_in_the_place_of_all() -> None:
    values = wire.decode_attributes(wireguard.encode(7, DEVICE))

    assert (values[1], values[3], values[5]) == (wire.u32(7), b"p" * 32, wire.u32(1))
    assert int.from_bytes(values[6], "little") == 51821 or int.from_bytes(values[6], "big") == 51821
    peer = peer_of(DEVICE)
    assert (peer[1], peer[2]) == (b"u" * 32, b"s" * 32)
    allowed = wire.decode_attributes(wire.decode_attributes(peer[9])[0])
    assert (allowed[2], allowed[3]) == (PEER.allowed.packed, b"\x80")


def test_an_endpoint_has_the_networks_byte_order() -> None:
    assert peer_of(DEVICE)[4][2:8] == (51820).to_bytes(2, "big") + bytes((192, 0, 2, 2))
    ipv6 = Endpoint(ipaddress.ip_address("2001:db8::2"), 51820)
    sockaddr = peer_of(replace(DEVICE, peer=replace(PEER, endpoint=ipv6)))[4]
    assert (len(sockaddr), sockaddr[8:24]) == (28, ipv6.address.packed)


def test_a_peer_that_shows_itself_has_no_endpoint() -> None:
    assert 4 not in peer_of(replace(DEVICE, peer=replace(PEER, endpoint=None)))


@pytest.mark.parametrize(
    "device",
    [replace(DEVICE, private_key=b""), replace(DEVICE, peer=replace(PEER, preshared_key=b"s" * 31))],
)
def test_what_is_no_key_is_refused(device: Device) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        wireguard.encode(7, device)


def test_secrets_are_not_shown() -> None:
    assert "pppp" not in repr(DEVICE)
    assert "ssss" not in repr(DEVICE)


def test_a_part_that_the_kernel_has_not_is_a_name_that_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        Generic("kata-py-none")
    with Generic("nlctrl"):
        pass
