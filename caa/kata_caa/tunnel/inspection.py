"""What the node sees of a pod's network namespace, and of itself, when a peer pod is announced.

Source: cloud-api-adaptor `pkg/podnetwork/workernode.go`, `common.go`. IPv6, and interfaces beyond the first, are ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kata_caa.apf import Interface, Neighbor, PodNetwork, Route
from kata_caa.errors import TunnelError
from kata_py.netlink import rtnetlink as rt
from kata_py.netlink import vxlan
from kata_py.netlink.namespace import connect, is_namespace
from kata_py.netlink.rtnetlink import Link, Rtnetlink

FAMILIES = (socket.AF_INET, socket.AF_INET6)
PROTOCOLS = {rt.RTPROT_STATIC: "static", rt.RTPROT_BOOT: "boot", rt.RTPROT_DHCP: "dhcp", rt.RTPROT_KERNEL: "kernel"}
SCOPES = {0: "", 200: "site", 253: "link", 254: "host", 255: "nowhere"}  # universe is zero, which is not said
_NETNS = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the adaptor's settings say of pods' networks.

    Attributes:
        host_interface: The node's interface that tunnels take; empty is that of its default route.
        subnets: Further networks that pods reach through the tunnel.
        external_via_pod_vm: Whether traffic out of the cluster leaves at the machine.
        port: UDP port of the tunnels.
    """

    host_interface: str = ""
    subnets: tuple[str, ...] = ()
    external_via_pod_vm: bool = False
    port: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """A namespace at one moment."""

    links: dict[int, Link]
    addresses: list[tuple[int, rt.Address]]
    routes: list[rt.Route]
    neighbours: list[rt.Neighbour]

    @classmethod
    def of(cls, kernel: Rtnetlink) -> _View:
        return cls(
            {link.number: link for link in kernel.links()},
            kernel.addresses(),
            [route for family in FAMILIES for route in kernel.routes(family)],
            kernel.neighbours(),
        )

    def prefixes(self, link: Link) -> list[str]:
        """A link's addresses that reach beyond it, IPv4's first."""
        return [
            f"{ipaddress.ip_address(address.address)}/{address.prefix}"
            for number, address in sorted(self.addresses, key=lambda each: each[1].family)
            if number == link.number and not ipaddress.ip_address(address.address).is_link_local
        ]

    def defaults(self, family: int) -> list[rt.Route]:
        return [
            route
            for route in self.routes
            if route.family == family
            and route.prefix == 0
            and route.type == rt.RTN_UNICAST
            and route.link in self.links
        ]


def inspect(netns: Path, wishes: Wishes) -> PodNetwork:
    """What a pod's machine must know of its network; its tunnels have no numbers yet. Blocks.

    Raises:
        TunnelError: The namespace, or the node, does not have what is needed; says what.
    """
    try:
        with connect(netns) as kernel:
            pod = _View.of(kernel)
        with Rtnetlink() as kernel:
            host = _View.of(kernel)
    except OSError as error:
        raise TunnelError(f"the pod's network cannot be looked at: {error}") from error
    default = next((route for family in FAMILIES for route in pod.defaults(family)), None)
    if default is None:
        raise TunnelError(f"{netns} has no default route: has the network plug-in made the pod's network?")
    link = pod.links[default.link]
    prefixes = pod.prefixes(link)
    if not prefixes:
        raise TunnelError(f"{netns}: {link.name} has no address")
    if sum("." in prefix for prefix in prefixes) > 1:
        raise TunnelError(f"{netns}: {link.name} has more than one IPv4 address: {', '.join(prefixes)}")
    primary, worker = _worker(host, wishes.host_interface)
    return PodNetwork(
        pod_ip=prefixes[0],
        hardware_address=link.address.hex(":"),
        interface=link.name,
        worker_ip=worker,
        routes=(*_routes(pod), *_subnet_routes(wishes.subnets, link, default)),
        neighbors=tuple(_neighbours(pod)),
        mtu=link.mtu,
        vxlan_port=wishes.port,
        dedicated=bool(wishes.host_interface) and wishes.host_interface != primary,
        external_via_pod_vm=wishes.external_via_pod_vm,
        pod_ips=tuple(prefixes[1:]),
        interfaces=tuple(_others(pod, link)),
    )


def vnis_in_use(namespaces: Iterable[Path] = ()) -> frozenset[int]:
    """The numbers of the tunnels that namespaces of this node have. Blocks.

    Args:
        namespaces: Further ones than those in /run/netns and our own.
    """
    found: set[int] = set()
    places = {*namespaces, *(_NETNS.iterdir() if _NETNS.is_dir() else ())}
    for place in places:
        try:
            if is_namespace(place):
                with connect(place) as kernel:
                    found |= _vnis(kernel)
        except OSError:
            continue  # it has just gone
    with Rtnetlink() as kernel:
        found |= _vnis(kernel)
    return frozenset(found)


def _vnis(kernel: Rtnetlink) -> set[int]:
    return {tunnel.vni for link in kernel.links() if (tunnel := vxlan.tunnel(link)) is not None}


def _worker(host: _View, wanted: str) -> tuple[str, str]:
    """The node's primary interface, and the address, with its prefix length, of the one that tunnels take."""
    names = {host.links[route.link].name for family in FAMILIES for route in host.defaults(family)}
    primary = min(names, key=_rank, default="")
    name = wanted or primary
    if not name:
        raise TunnelError("this node has no default route: -host-interface says which interface tunnels take")
    link = next((link for link in host.links.values() if link.name == name), None)
    if link is None:
        raise TunnelError(f"-host-interface: this node has no {name}")
    prefixes = host.prefixes(link)
    if not prefixes:
        raise TunnelError(f"{name} of this node has no address")
    return primary, prefixes[0]


def _rank(name: str) -> tuple[str, int]:
    """Of interfaces with one prefix, the lowest number comes first."""
    match = re.fullmatch(r"([a-zA-Z]*)(\d*).*", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def _routes(pod: _View) -> list[Route]:
    found = [
        route
        for route in pod.routes
        if route.type == rt.RTN_UNICAST and route.protocol in PROTOCOLS and route.link in pod.links
        and not (route.destination and ipaddress.ip_address(route.destination).is_link_local)
    ]  # fmt: skip
    found.sort(key=lambda route: (route.family, route.destination or b"", route.prefix, route.metric))
    return [
        Route(
            destination=f"{_text(route.destination, route.family)}/{route.prefix}",
            gateway=_text(route.gateway, route.family) if route.gateway else "",
            device=pod.links[route.link].name,
            protocol=PROTOCOLS[route.protocol],
            scope=SCOPES.get(route.scope, ""),
        )
        for route in found
    ]


def _subnet_routes(subnets: Sequence[str], link: Link, default: rt.Route) -> list[Route]:
    gateway = _text(default.gateway, default.family) if default.gateway else ""
    for subnet in subnets:
        try:
            ipaddress.ip_network(subnet)
        except ValueError as error:
            raise TunnelError(f"-pod-subnet-cidrs: {error}") from None
    return [Route(subnet, gateway, link.name) for subnet in subnets]


def _neighbours(pod: _View) -> list[Neighbor]:
    return [
        Neighbor(_text(each.address, each.family), (each.link_address or b"").hex(":"), pod.links[each.link].name)
        for each in pod.neighbours
        if each.state & rt.NUD_PERMANENT and each.link in pod.links and each.link_address
        and not ipaddress.ip_address(each.address).is_multicast
    ]  # fmt: skip


def _others(pod: _View, first: Link) -> list[Interface]:
    """The pod's further interfaces: those with an address, but for loopback and what is ours."""
    return [
        Interface(link.name, link.address.hex(":"), tuple(prefixes), link.mtu)
        for link in sorted(pod.links.values())
        if link.number != first.number and not link.flags & rt.IFF_LOOPBACK and link.kind != vxlan.KIND
        and link.type == rt.ARPHRD_ETHER and link.is_up and (prefixes := pod.prefixes(link))
    ]  # fmt: skip


def _text(address: bytes | None, family: int) -> str:
    if address is None:
        return "0.0.0.0" if family == socket.AF_INET else "::"
    return str(ipaddress.ip_address(address))
