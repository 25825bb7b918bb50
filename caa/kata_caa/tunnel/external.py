"""The pod VM's second network interface, given to the pod: its traffic that leaves the cluster goes out there.

Runs in the guest. Source: cloud-api-adaptor `docs/external-network.md`, `pkg/podnetwork/common.go`.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple

from kata_caa.errors import TunnelError
from kata_py.netlink import vxlan
from kata_py.netlink.rtnetlink import ARPHRD_ETHER, IFF_LOOPBACK, Address, Link, Route, Rtnetlink

_OTHERS: Final = ("veth", "lo", "docker", "podman", "br-", "cni", "tunl", "tun", "tap")  # what is no cloud's interface
_KINDS: Final = (vxlan.KIND, "gretap", "erspan")  # the pod's own, and what some modules put into each namespace
_FREE_NAME: Final = "external"


class Secondary(NamedTuple):
    """An interface that can be given to the pod.

    Attributes:
        link: The interface.
        address: Its IPv4 address.
        gateway: Next hop of its default route.
    """

    link: Link
    address: Address
    gateway: bytes


def divert(own: Rtnetlink, pod: Rtnetlink, namespace: int, tunnel: int) -> None:
    """Move the second interface to the pod, and the pod's default route of IPv4 to it; done already is done.

    Args:
        own: The machine's network.
        pod: The pod's.
        namespace: Descriptor of the pod's namespace.
        tunnel: Number of the interface that the tunnel uses, which stays.

    Raises:
        TunnelError: There is no such interface.
        OSError: The kernel refuses.
    """
    if external_link(pod.links()) is not None:
        return
    found = secondary(own.links(), own.addresses(), own.routes(socket.AF_INET), tunnel)
    if any(link.name == found.link.name for link in pod.links()):
        own.set_link(found.link, up=False)
        own.set_link(found.link, name=_FREE_NAME)
    own.move_link(found.link, namespace)
    given = external_link(pod.links())
    if given is None:
        raise TunnelError(f"the interface {found.link.name} has gone on its way to the pod")
    pod.add_address(given, found.address)
    pod.set_link(given, up=True)
    for route in defaults(pod.routes(socket.AF_INET)):
        pod.delete_route(route)
    pod.add_route(Route(socket.AF_INET, gateway=found.gateway, link=given.number))


def external_link(links: list[Link]) -> Link | None:
    """The link among the pod's that is neither its own nor loopback: one that it was given."""
    for link in links:
        if not link.flags & IFF_LOOPBACK and link.type == ARPHRD_ETHER and link.kind not in _KINDS:
            return link
    return None


def defaults(routes: list[Route]) -> list[Route]:
    """The default routes, the best one first."""
    return sorted((route for route in routes if not route.prefix and route.link), key=lambda route: route.metric)


def secondary(links: list[Link], addresses: list[tuple[int, Address]], routes: list[Route], tunnel: int) -> Secondary:
    """The interface to give: the first but the primary one with a default route, or in the primary one's network.

    Args:
        links: The machine's.
        addresses: The machine's, each with the number of its link.
        routes: Its main table.
        tunnel: Number of the interface that the tunnel uses.

    Raises:
        TunnelError: There is none.
    """
    ways = defaults(routes)
    if not ways:
        raise TunnelError("the pod VM has no default route, so its primary interface is unknown")
    primary = ways[0]
    home = [_network(address) for number, address in addresses if number == primary.link and _is_v4(address)]
    for link in links:
        if link.number in (primary.link, tunnel) or link.name.startswith(_OTHERS) or link.kind == vxlan.KIND:
            continue
        for number, address in addresses:
            if number != link.number or not _is_v4(address):
                continue
            own = next((route for route in ways if route.link == link.number), None)
            via = own or (primary if _network(address) in home else None)
            if via is not None and via.gateway is not None:
                return Secondary(link, address, via.gateway)
    raise TunnelError("the pod VM has no second interface with an IPv4 address and a way out")


def _is_v4(address: Address) -> bool:
    return address.family == socket.AF_INET


def _network(address: Address) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((address.address, address.prefix), strict=False)
