"""What a pod's network namespace holds, as frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a link is, as the agent is told. Source: kata `virtcontainers/endpoint.go`, EndpointType."""

    DEVICE = "virtual"  # a veth, and any Ethernet link that needs no care of its own
    MACVLAN = "macvlan"
    IPVLAN = "ipvlan"
    MACVTAP = "macvtap"
    TAP = "tuntap"


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of a link, with the length of its network's prefix."""

    ip: str
    prefix: int

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table over a link.

    Attributes:
        destination: The network: `10.0.0.0/24`; empty is everywhere.
        gateway: The next hop; empty is none.
        source: The preferred source address; empty is none.
        scope: As in rtnetlink(7): 0 is universe, 253 link.
        is_v6: Whether it is an IPv6 route, which a default route over a link does not tell otherwise.
        onlink: Whether the gateway is taken to be on the link although no prefix says so.
        mtu: In bytes; 0 is the link's.
    """

    destination: str
    gateway: str = ""
    source: str = ""
    scope: int = 0
    is_v6: bool = False
    onlink: bool = False
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour's hardware address.

    Attributes:
        ip: The neighbour.
        mac: Its hardware address; empty is none.
        state: NUD_* of `linux/neighbour.h`.
        flags: NTF_*.
    """

    ip: str
    mac: str
    state: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A link of the namespace that the guest takes over.

    Attributes:
        kind: What it is.
        name: Its name, and so that of the guest's interface.
        index: Its number in the namespace.
        mac: Its hardware address.
        mtu: In bytes.
        addresses: Its IP addresses, in the kernel's order.
        routes: The routes over it, but for those that the kernel makes with an address.
        neighbours: Permanent ones, and gateways that have answered.
        noarp: Whether it resolves no addresses (`IFF_NOARP`).
    """

    kind: Kind
    name: str
    index: int
    mac: str
    mtu: int
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    noarp: bool = False
