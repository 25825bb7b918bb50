"""WireGuard links: what the kernel is told of their keys and of their one peer.

Such a link is made by `Rtnetlink.add_link`, is told this, and brought up. Its packets leave by the namespace that it
was made in. Source: Linux `include/uapi/linux/wireguard.h`, `drivers/net/wireguard/netlink.c`.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from kata_py.netlink import wire
from kata_py.netlink.generic import Generic
from kata_py.netlink.rtnetlink import Link

KIND: Final = "wireguard"
KEY_SIZE: Final = 32  # bytes

_SET_DEVICE: Final = 1
_IFINDEX, _PRIVATE_KEY, _FLAGS, _LISTEN_PORT, _PEERS = 1, 3, 5, 6, 8
_REPLACE_PEERS: Final = 1
_PUBLIC_KEY, _PRESHARED_KEY, _PEER_FLAGS, _ENDPOINT, _KEEPALIVE, _ALLOWED_IPS = 1, 2, 3, 4, 5, 9
_REPLACE_ALLOWED_IPS: Final = 2
_FAMILY, _ADDRESS, _PREFIX = 1, 2, 3
_NESTED: Final = 0x8000  # which this part of the kernel insists on

_U16: Final = struct.Struct("=H")
_SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")  # family, port, address
_SOCKADDR_IN6: Final = struct.Struct("=H2s4x16s4x")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is: an address, and a UDP port."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end.

    Attributes:
        public_key: Its key; a packet that it has not sealed is dropped.
        preshared_key: What both ends mix in besides; secret.
        endpoint: Where it is; None waits until it shows itself, and wherever it shows itself next it is from then on.
        allowed: Its only address inside.
        keepalive: Seconds after which it is told that we are there; 0 never.
    """

    public_key: bytes
    preshared_key: bytes = field(repr=False)
    endpoint: Endpoint | None
    allowed: IPv6Address
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """Our end.

    Attributes:
        private_key: Our key; secret.
        port: UDP port; 0 leaves it to the kernel.
        peer: The one other end.
    """

    private_key: bytes = field(repr=False)
    port: int
    peer: Peer


def is_supported() -> bool:
    """Whether the kernel has WireGuard; its module is loaded if need be.

    Raises:
        OSError: It cannot be asked.
    """
    try:
        Generic(KIND).close()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPROTONOSUPPORT):
            return False
        raise
    return True


def configure(link: Link, device: Device) -> None:
    """Tell a link its keys and its peer, which takes the place of those it had.

    Args:
        link: A link of this kind, in this namespace.
        device: What it shall be.

    Raises:
        ValueError: A key has not its length.
        OSError: The kernel refuses.
    """
    payload = encode(link.number, device)
    with Generic(KIND) as kernel:
        kernel.command(_SET_DEVICE, payload, f"{link.name}, keys and peer")


def encode(number: int, device: Device) -> bytes:
    """The attributes of that.

    Args:
        number: The link's.
        device: What it shall be.

    Raises:
        ValueError: A key has not its length.
    """
    peer = device.peer
    if any(len(key) != KEY_SIZE for key in (device.private_key, peer.public_key, peer.preshared_key)):
        raise ValueError(f"a key of WireGuard has {KEY_SIZE} bytes")
    allowed = ((_FAMILY, _U16.pack(socket.AF_INET6)), (_ADDRESS, peer.allowed.packed), (_PREFIX, b"\x80"))
    values = [
        (_PUBLIC_KEY, peer.public_key),
        (_PRESHARED_KEY, peer.preshared_key),
        (_PEER_FLAGS, wire.u32(_REPLACE_ALLOWED_IPS)),
        (_KEEPALIVE, _U16.pack(peer.keepalive)),
        (_ALLOWED_IPS | _NESTED, wire.attribute(_NESTED, wire.encode_attributes(allowed))),
    ]
    if peer.endpoint is not None:
        values.append((_ENDPOINT, _sockaddr(peer.endpoint)))
    return wire.encode_attributes(
        (
            (_IFINDEX, wire.u32(number)),
            (_FLAGS, wire.u32(_REPLACE_PEERS)),
            (_PRIVATE_KEY, device.private_key),
            (_LISTEN_PORT, _U16.pack(device.port)),
            (_PEERS | _NESTED, wire.attribute(_NESTED, wire.encode_attributes(values))),
        )
    )


def _sockaddr(endpoint: Endpoint) -> bytes:
    port, address = endpoint.port.to_bytes(2, "big"), endpoint.address.packed
    if endpoint.address.version == 4:
        return _SOCKADDR_IN.pack(socket.AF_INET, port, address)
    return _SOCKADDR_IN6.pack(socket.AF_INET6, port, address)
