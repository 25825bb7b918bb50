"""The end of a machine's DHCP leases, which libvirt has no call for.

dnsmasq, which serves a network of libvirt's, ends a lease at its holder's word: a DHCPRELEASE (RFC 2131, 4.4.6). Here
it is said in the place of a machine that is gone. That needs the network's bridge at hand: of a host far away, and of
addresses of version 6, leases end by their time alone.

A lease that stays is logged, and never an error: nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from xml.etree import ElementTree as ET

from kata_caa.providers.libvirt import binding
from kata_caa.providers.libvirt.binding import Connect, Domain, Network

logger = logging.getLogger(__name__)

_SERVER_PORT = 67
_TRIES = 4  # a datagram may be lost
_WAIT = 0.5  # seconds after each, for libvirt to learn of it
_POLL = 0.05  # seconds
_COOKIE = bytes((99, 130, 83, 99))  # RFC 2131, 3
_MESSAGE_TYPE, _SERVER_ID, _CLIENT_ID, _END = 53, 54, 61, 255  # RFC 2132
_RELEASE = 7
_SIZE = 300  # bytes, of the shortest message of BOOTP


def packet(xid: int, address: IPv4Address, mac: str, server: IPv4Address, client_id: bytes = b"") -> bytes:
    """A DHCPRELEASE.

    Args:
        xid: The message's number.
        address: What is given back.
        mac: Its holder's hardware address, Ethernet's.
        server: Who gave it.
        client_id: By what the holder named itself, if it did; the server then tells it by this.
    """
    fixed = struct.pack(
        "!4BI2H4s4s4s4s16s64s128s",
        1, 1, 6, 0, xid, 0, 0, address.packed, bytes(4), bytes(4), bytes(4),
        bytes.fromhex(mac.replace(":", "")), b"", b"",
    )  # fmt: skip
    options = bytes((_MESSAGE_TYPE, 1, _RELEASE, _SERVER_ID, 4)) + server.packed
    if client_id:
        options += bytes((_CLIENT_ID, len(client_id))) + client_id
    return (fixed + _COOKIE + options + bytes((_END,))).ljust(_SIZE, b"\0")


def release(connect: Connect, domain: Domain, macs: Sequence[str]) -> None:
    """End what leases a stopped machine has, of its networks at hand; returns when libvirt lists them no more."""
    try:
        top = ET.fromstring(domain.XMLDesc(0))
        for name in sorted({each.get("network", "") for each in top.iterfind("devices/interface/source")} - {""}):
            network = connect.networkLookupByName(name)
            for mac in macs:
                _release(network, name, mac)
    except (binding.Refused, OSError, ValueError, ET.ParseError) as error:
        logger.warning("a lease of machine %s ends by its time alone: %s", domain.name(), error)


def _release(network: Network, name: str, mac: str) -> None:
    leases = _leases(network, mac)
    if not leases:
        return
    top = ET.fromstring(network.XMLDesc(0))
    bridge = _bridge(top)
    if not bridge:
        logger.info("network %s is not of this host: the lease of %s ends by its time", name, mac)
        return
    for _ in range(_TRIES):
        for lease in leases:
            _send(top, bridge, mac, lease)
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            leases = _leases(network, mac)
            if not leases:
                return
            time.sleep(_POLL)
    logger.warning("network %s keeps the lease of %s, though it was given back %d times", name, mac, _TRIES)


def _leases(network: Network, mac: str) -> list[Mapping[str, object]]:
    return [each for each in network.DHCPLeases(mac) if each["type"] == binding.IPV4]


def _bridge(network: ET.Element) -> str:
    """The network's bridge, if it is one of this host's: of its name and its hardware address."""
    name, mac = (_attribute(network, tag, key) for tag, key in (("bridge", "name"), ("mac", "address")))
    try:
        here = Path("/sys/class/net", name, "address").read_text().strip() if name else ""
    except OSError:
        return ""
    return name if here and here == mac.lower() else ""


def _attribute(top: ET.Element, tag: str, key: str) -> str:
    found = top.find(tag)
    return "" if found is None else found.get(key, "")


def _send(network: ET.Element, bridge: str, mac: str, lease: Mapping[str, object]) -> None:
    address = IPv4Address(str(lease["ipaddr"]))
    server = _server(network, address)
    client_id = bytes.fromhex(str(lease.get("clientid") or "").replace(":", "").replace("*", ""))
    message = packet(int.from_bytes(os.urandom(4)), address, mac, server, client_id)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # The server hears of its own bridge alone, and tells by the way a message came which network it is about.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        sock.sendto(message, (str(server), _SERVER_PORT))


def _server(network: ET.Element, address: IPv4Address) -> IPv4Address:
    """The server's address among the machine's neighbours.

    Raises:
        ValueError: The network has none there.
    """
    for each in network.iterfind("ip"):
        if each.get("family", "ipv4") == "ipv4":
            own = IPv4Interface(f"{each.get('address')}/{each.get('netmask') or each.get('prefix')}")
            if address in own.network:
                return own.ip
    raise ValueError(f"the network has no address beside {address}")
