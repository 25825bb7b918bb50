"""The pod VM's second network interface, given to the pod: its traffic that leaves the cluster goes out there.

Runs in the guest. Source: cloud-api-adaptor `docs/external-network.md`, `pkg/podnetwork/common.go`.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Final, NamedTuple

from kata_caa.errors import TunnelError
from kata_py.netlink import vxlan
from kata_py.netlink.rtnetlink import ARPHRD_ETHER, IFF_LOOPBACK, Address, Link, Route, Rtnetlink

_OTHERS: Final = ("veth", "lo", "docker", "podman", "br-", "cni", "tunl", "tun", "tap")  # what is no cloud's interface
_KINDS: Final = (vxlan.KIND, "gretap", "erspan")  # the pod's own, and what some modules put into each namespace
_FREE_NAME: Final = "external"

_LOG = logging.getLogger(__name__)


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
    """Move the second interface to the pod, and the pod's default routes to it; done already is done.

    That of IPv6 stays with the tunnel if the interface has no way out for it.

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
    addresses = own.addresses()
    found = secondary(own.links(), addresses, own.routes(socket.AF_INET), tunnel)
    ways = {socket.AF_INET: (found.address, found.gateway)}
    if (more := way_out(found.link, socket.AF_INET6, addresses, own.routes(socket.AF_INET6))) is not None:
        ways[socket.AF_INET6] = more
    elif defaults(pod.routes(socket.AF_INET6)):
        _LOG.warning(
            "IPv6 traffic that leaves the cluster goes through the tunnel: %s has no IPv6 address and gateway",
            found.link.name,
        )
    if any(link.name == found.link.name for link in pod.links()):
        own.set_link(found.link, up=False)
        own.set_link(found.link, name=_FREE_NAME)
    own.move_link(found.link, namespace)
    given = external_link(pod.links())
    if given is None:
        raise TunnelError(f"the interface {found.link.name} has gone on its way to the pod")
    pod.set_link(given, up=True)
    for family, (address, gateway) in ways.items():
        pod.add_address(given, address)
        for route in defaults(pod.routes(family)):
            pod.delete_route(route)
        pod.add_route(Route(family, gateway=gateway, link=given.number))


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
    for link in links:
        if link.number in (ways[0].link, tunnel) or link.name.startswith(_OTHERS) or link.kind == vxlan.KIND:
            continue
        if (way := way_out(link, socket.AF_INET, addresses, routes)) is not None:
            return Secondary(link, *way)
    raise TunnelError("the pod VM has no second interface with an IPv4 address and a way out")


def way_out(
    link: Link, family: int, addresses: list[tuple[int, Address]], routes: list[Route]
) -> tuple[Address, bytes] | None:
    """An address of an interface, and the gateway to be reached from it: its own, or the primary interface's.

    Args:
        link: The interface.
        family: AF_INET or AF_INET6.
        addresses: The machine's, each with the number of its link.
        routes: Its main table, of that family.
    """
    ways = defaults(routes)
    if not ways:
        return None
    home = [_network(address) for number, address in addresses if number == ways[0].link]
    own = next((route for route in ways if route.link == link.number), None)
    for number, address in addresses:
        if number == link.number and address.family == family and not _network(address).is_link_local:
            via = own or (ways[0] if _network(address) in home else None)
            if via is not None and via.gateway is not None:
                return address, via.gateway
    return None


def _network(address: Address) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((address.address, address.prefix), strict=False)
