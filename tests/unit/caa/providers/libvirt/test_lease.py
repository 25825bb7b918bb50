"""The message by which a lease ends, field by field (RFC 2131, 2)."""

from __future__ import annotations

from ipaddress import IPv4Address

from kata_caa.providers.libvirt.lease import packet

MAC, ADDRESS, SERVER = "52:54:00:0a:0b:0c", IPv4Address("192.168.200.10"), IPv4Address("192.168.200.1")


def test_a_release_says_who_gives_which_address_back_to_whom() -> None:
    said = packet(0x01020304, ADDRESS, MAC, SERVER)
    assert said[:4] == b"\x01\x01\x06\x00"  # a request, of Ethernet, whose addresses have 6 bytes, over no relay
    assert said[4:8] == b"\x01\x02\x03\x04"
    assert said[8:12] == bytes(4)  # no seconds, no flags: an answer there is none
    assert said[12:16] == bytes((192, 168, 200, 10))
    assert said[16:28] == bytes(12)
    assert said[28:44] == b"\x52\x54\x00\x0a\x0b\x0c" + bytes(10)
    assert said[44:236] == bytes(192)
    assert said[236:240] == b"\x63\x82\x53\x63"
    assert said[240:250] == b"\x35\x01\x07" + b"\x36\x04" + bytes((192, 168, 200, 1)) + b"\xff"
    assert said[250:] == bytes(50)


def test_a_holder_that_named_itself_is_named() -> None:
    said = packet(1, ADDRESS, MAC, SERVER, b"\x01\x52\x54")
    assert said[249:255] == b"\x3d\x03\x01\x52\x54\xff"
