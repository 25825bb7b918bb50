"""VXLAN tunnels: what the kernel is told of a link of that kind, and tells. No I/O.

Source: Linux `include/uapi/linux/if_link.h` (IFLA_VXLAN_*), `drivers/net/vxlan/vxlan_core.c`; RFC 7348.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from kata_py.netlink import wire
from kata_py.netlink.rtnetlink import Link

KIND = "vxlan"
DEFAULT_PORT = 4789  # IANA's; the kernel's own is an older one
MAX_VNI = (1 << 24) - 1

_ID, _GROUP, _LINK, _TTL, _TOS, _LEARNING, _PORT, _GROUP6, _LOCAL6 = 1, 2, 3, 5, 6, 7, 15, 16, 17
_BE16 = struct.Struct("!H")


class Vxlan(NamedTuple):
    """A tunnel to one other end.

    Attributes:
        vni: The number that both ends have.
        remote: The other end; None where there is not just one.
        port: UDP port of both ends.
        local: Our address, of IPv6; None leaves it to routes.
        lower: Number of the link that carries its packets; 0 leaves it to routes. Of link-local addresses it carries
            all: what comes by another link finds no tunnel.
    """

    vni: int
    remote: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    port: int
    local: ipaddress.IPv6Address | None = None
    lower: int = 0


def encode(tunnel: Vxlan) -> bytes:
    """The data of a link: nothing is learnt from frames, ttl and tos are the kernel's.

    Raises:
        ValueError: The number has more than 24 bits, or there is no other end.
    """
    if not 0 <= tunnel.vni <= MAX_VNI:
        raise ValueError(f"{tunnel.vni} is no number of a VXLAN, which has 24 bits")
    if tunnel.remote is None:
        raise ValueError(f"VXLAN {tunnel.vni} has no other end")
    values = [
        (_ID, wire.u32(tunnel.vni)),
        (_GROUP if tunnel.remote.version == 4 else _GROUP6, tunnel.remote.packed),
        (_TTL, b"\0"),
        (_TOS, b"\0"),
        (_LEARNING, b"\0"),
        (_PORT, _BE16.pack(tunnel.port)),
    ]
    if tunnel.local is not None:
        values.append((_LOCAL6, tunnel.local.packed))
    if tunnel.lower:
        values.append((_LINK, wire.u32(tunnel.lower)))
    return wire.encode_attributes(values)


def decode(data: bytes) -> Vxlan:
    """A tunnel from the data of its link.

    Raises:
        MalformedMessage: A value has not its form.
    """
    values = wire.decode_attributes(data)
    remote, local = values.get(_GROUP) or values.get(_GROUP6), values.get(_LOCAL6)
    port = values.get(_PORT, b"\0\0")
    try:
        return Vxlan(
            wire.to_u32(values.get(_ID, bytes(4))),
            ipaddress.ip_address(remote) if remote else None,
            _BE16.unpack(port)[0],
            ipaddress.IPv6Address(local) if local else None,
            wire.to_u32(values.get(_LINK, bytes(4))),
        )
    except (ValueError, struct.error) as error:
        raise wire.MalformedMessage(f"a VXLAN that cannot be read: {error}") from error


def tunnel(link: Link) -> Vxlan | None:
    """What tunnel a link is; None if it is none."""
    return decode(link.data) if link.kind == KIND else None
