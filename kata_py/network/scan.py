"""From rtnetlink's messages to endpoints: pure functions.

Source: kata `virtcontainers/network_linux.go` for what is taken and what is left; `linux/rtnetlink.h`,
`linux/if_link.h`, `linux/neighbour.h` for the values.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kata_py.network.endpoint import Address, Endpoint, Kind, Neighbour, Route
from kata_py.network.errors import UnsupportedLink

log = logging.getLogger(__name__)

# As pyroute2 decodes them: the header's fields by name, and `attrs`, pairs of an attribute's name and value.
Message = Mapping[str, Any]

_IFF_LOOPBACK, _IFF_NOARP = 0x8, 0x80
_ARPHRD_ETHER = 1
_AF_INET6 = 10
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RTN_UNICAST, _RTM_F_CLONED, _RTNH_F_ONLINK = 254, 2, 1, 0x200, 4
_NUD_REACHABLE, _NUD_PERMANENT = 0x02, 0x80
_PHYSICAL_BUSES = frozenset({"pci", "vmbus"})

_KINDS = {"macvlan": Kind.MACVLAN, "ipvlan": Kind.IPVLAN, "macvtap": Kind.MACVTAP, "tun": Kind.TAP}


@dataclass(frozen=True, slots=True)
class Dump:
    """All that a namespace tells of itself, as the kernel's messages."""

    links: tuple[Message, ...]
    addresses: tuple[Message, ...] = ()
    routes: tuple[Message, ...] = ()
    neighbours: tuple[Message, ...] = ()


def endpoints(dump: Dump, *, known: Collection[int] = ()) -> tuple[Endpoint, ...]:
    """The links that a guest takes over, in the kernel's order.

    Loopback and links without an address are passed over: the latter are what tunnel modules put into each new
    namespace, or not set up yet.

    Args:
        dump: What the namespace holds.
        known: Indices of links that are not looked at.

    Raises:
        UnsupportedLink: A link with an address is a physical device, or not an Ethernet link.
    """
    found = []
    for link in dump.links:
        index = link["index"]
        addresses = tuple(_addresses(message for message in dump.addresses if message["index"] == index))
        if index in known or link["flags"] & _IFF_LOOPBACK or not addresses:
            continue
        routes = tuple(_routes(dump.routes, index))
        gateways = {route.gateway for route in routes}
        found.append(
            Endpoint(
                _kind(link), _attribute(link, "IFLA_IFNAME"), index, _attribute(link, "IFLA_ADDRESS"),
                _attribute(link, "IFLA_MTU"), addresses, routes,
                tuple(_neighbours(dump.neighbours, index, gateways)), bool(link["flags"] & _IFF_NOARP),
            )
        )  # fmt: skip
    return tuple(found)


def _attribute(message: Message, name: str, default: Any = None) -> Any:
    return next((value for key, value in message["attrs"] if key == name), default)


def _kind(link: Message) -> Kind:
    name = _attribute(link, "IFLA_IFNAME")
    bus = _attribute(link, "IFLA_PARENT_DEV_BUS_NAME", "")
    if bus in _PHYSICAL_BUSES:
        device = _attribute(link, "IFLA_PARENT_DEV_NAME", "?")
        raise UnsupportedLink(
            f"{name} is a physical device ({bus} {device}), which needs VFIO and is not supported; "
            "give the pod a virtual link"
        )
    info = _attribute(link, "IFLA_LINKINFO", {"attrs": ()})
    kind = _attribute(info, "IFLA_INFO_KIND", "")
    if link["ifi_type"] != _ARPHRD_ETHER:
        raise UnsupportedLink(
            f"{name} ({kind or 'of no kind'}) is not an Ethernet link and cannot be a guest's interface; "
            "give the pod a veth, macvlan, ipvlan or tap link"
        )
    return _KINDS.get(kind, Kind.DEVICE)


def _addresses(messages: Iterable[Message]) -> Iterable[Address]:
    for message in messages:  # of a point-to-point address IFA_ADDRESS is the peer's
        ip = _attribute(message, "IFA_LOCAL") or _attribute(message, "IFA_ADDRESS")
        yield Address(ip, message["prefixlen"])


def _routes(messages: Iterable[Message], index: int) -> Iterable[Route]:
    for message in messages:
        is_extra = message["flags"] & _RTM_F_CLONED or message["proto"] == _RTPROT_KERNEL
        table = _attribute(message, "RTA_TABLE", message["table"])
        if table != _RT_TABLE_MAIN or message["type"] != _RTN_UNICAST or is_extra:
            continue
        hops = _attribute(message, "RTA_MULTIPATH", ())
        destination = _attribute(message, "RTA_DST", "")
        if any(hop["oif"] == index for hop in hops):
            log.warning("route to %s has several next hops, which a guest cannot be told", destination or "everywhere")
        if _attribute(message, "RTA_OIF") != index:
            continue
        if _attribute(message, "RTA_VIA") is not None:
            log.warning("route to %s has a gateway of another family, which a guest cannot be told", destination)
            continue
        metrics = _attribute(message, "RTA_METRICS", {"attrs": ()})
        yield Route(
            f"{destination}/{message['dst_len']}" if destination and message["dst_len"] else "",
            _attribute(message, "RTA_GATEWAY", ""),
            _attribute(message, "RTA_PREFSRC", ""),
            message["scope"],
            message["family"] == _AF_INET6,
            bool(message["flags"] & _RTNH_F_ONLINK),
            _attribute(metrics, "RTAX_MTU", 0),
        )


def _neighbours(messages: Iterable[Message], index: int, gateways: set[str]) -> Iterable[Neighbour]:
    for message in messages:
        ip = _attribute(message, "NDA_DST")
        if message["ifindex"] != index or ip is None:
            continue
        state = message["state"]
        if state & _NUD_PERMANENT or (state & _NUD_REACHABLE and ip in gateways):
            yield Neighbour(ip, _attribute(message, "NDA_LLADDR", ""), state, message["flags"])


def is_loopback(address: Address) -> bool:
    """Whether the address is one of those that every guest has anyway."""
    return ipaddress.ip_address(address.ip).is_loopback
