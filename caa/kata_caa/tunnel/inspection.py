"""What a node sees of a pod's network before its virtual machine is made.

Source: cloud-api-adaptor `pkg/podnetwork/workernode.go`, `pkg/podnetwork/common.go`; `linux/rtnetlink.h`.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kata_caa import apf
from kata_caa.apf import PodNetwork
from kata_caa.errors import TunnelError
from kata_py.netlink.namespace import connect
from kata_py.netlink.rtnetlink import (
    ARPHRD_ETHER,
    IFF_LOOPBACK,
    NUD_PERMANENT,
    RTN_UNICAST,
    RTPROT_BOOT,
    RTPROT_DHCP,
    RTPROT_KERNEL,
    RTPROT_STATIC,
    Address,
    Link,
    Neighbour,
    Route,
    Rtnetlink,
)
from kata_py.netlink.vxlan import DEFAULT_PORT
from kata_py.resource.blocking import off_loop
from kata_py.resource.netns import NetworkNamespace

_LOG = logging.getLogger(__name__)

_PROTOCOLS: Final = {RTPROT_STATIC: "static", RTPROT_BOOT: "boot", RTPROT_DHCP: "dhcp", RTPROT_KERNEL: "kernel"}
_SCOPES: Final = {200: "site", 253: "link", 254: "host", 255: "nowhere"}  # 0, universe, is not said


@dataclass(frozen=True, slots=True)
class Dump:
    """All that matters of a network namespace."""

    links: tuple[Link, ...]
    addresses: tuple[tuple[int, Address], ...]
    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...] = ()


async def inspect(
    netns: Path,
    *,
    host_interface: str = "",
    pod_subnet_cidrs: Sequence[str] = (),
    port: int = DEFAULT_PORT,
    external_via_pod_vm: bool = False,
) -> PodNetwork:
    """What a pod VM must know of its pod's network, but for the numbers that its tunnels get.

    Args:
        netns: The pod's network namespace.
        host_interface: The node's interface that the tunnel uses; empty is that of its default route.
        pod_subnet_cidrs: Further networks that the pod reaches by its gateway.
        port: The tunnel's UDP port.
        external_via_pod_vm: Whether traffic that leaves the cluster takes the pod VM's own network.

    Raises:
        TunnelError: Something is missing in the pod's namespace or in the node's; names both.
    """
    host, pod = await off_loop(_dumps, netns)
    worker_ip, dedicated = worker_address(host, host_interface)
    return pod_network(
        pod, str(netns), worker_ip=worker_ip, dedicated=dedicated, pod_subnet_cidrs=pod_subnet_cidrs, port=port,
        external_via_pod_vm=external_via_pod_vm,
    )  # fmt: skip


def node_address(host_interface: str = "") -> str:
    """The address of this node that the tunnel uses, with its prefix length. Blocks.

    Raises:
        TunnelError: As `worker_address`, or the kernel does not tell.
    """
    return worker_address(_host_dump(), host_interface)[0]


def worker_address(host: Dump, host_interface: str = "") -> tuple[str, bool]:
    """The node's address that the tunnel uses, with its prefix length; and whether its interface is a dedicated one.

    Args:
        host: The node's namespace.
        host_interface: The interface that the tunnel uses; empty is that of the default route.

    Raises:
        TunnelError: There is no such interface, no default route, or no address.
    """
    found = _primary(host)
    primary = found[0].name if found is not None else ""
    if not (host_interface or primary):
        raise TunnelError("the node has no default route, so its primary interface is unknown: set host-interface")
    name = host_interface or primary
    link = next((link for link in host.links if link.name == name), None)
    if link is None:
        raise TunnelError(f"the node has no interface {name} (host-interface)")
    ipv4, ipv6 = _addresses(host, link)
    if not ipv4 + ipv6:
        raise TunnelError(f"the node's interface {name} has no IP address")
    return (ipv4 + ipv6)[0], name != primary


def pod_network(
    pod: Dump,
    netns: str,
    *,
    worker_ip: str,
    dedicated: bool = False,
    pod_subnet_cidrs: Sequence[str] = (),
    port: int = DEFAULT_PORT,
    external_via_pod_vm: bool = False,
) -> PodNetwork:
    """A pod's network from what its namespace holds.

    Args:
        pod: The namespace.
        netns: Its path, for errors.
        worker_ip: The node's address, with its prefix length.
        dedicated: Whether the tunnel has an interface of its own.
        pod_subnet_cidrs: Further networks that the pod reaches by its gateway.
        port: The tunnel's UDP port.
        external_via_pod_vm: Whether traffic that leaves the cluster takes the pod VM's own network.

    Raises:
        TunnelError: Something is missing; says what.
    """
    primary = _primary(pod)
    if primary is None:
        raise TunnelError(f"network namespace {netns} has no default route, so the pod's interface is unknown")
    link, _ = primary
    if link.type != ARPHRD_ETHER or not link.address:
        raise TunnelError(f"network namespace {netns}: {link.name} is no Ethernet interface, which a tunnel needs")
    ipv4, ipv6 = _addresses(pod, link)
    if len(ipv4) > 1:
        raise TunnelError(f"network namespace {netns}: {link.name} has several IPv4 addresses: {', '.join(ipv4)}")
    if not ipv4 + ipv6:
        raise TunnelError(f"network namespace {netns}: {link.name} has no IP address")
    further = [other for other in pod.links if other is not link and _is_further(pod, other)]
    names = {each.number: each.name for each in (link, *further)}
    return PodNetwork(
        pod_ip=(ipv4 + ipv6)[0],
        hardware_address=link.address.hex(":"),
        interface=link.name,
        worker_ip=worker_ip,
        routes=(*_subnet_routes(pod_subnet_cidrs, pod, netns, names), *_routes(pod.routes, names)),
        neighbors=_neighbors(pod.neighbours, names),
        mtu=link.mtu,
        vxlan_port=port,
        dedicated=dedicated,
        external_via_pod_vm=external_via_pod_vm,
        pod_ips=tuple((ipv4 + ipv6)[1:]),
        interfaces=tuple(
            apf.Interface(each.name, each.address.hex(":"), (*v4, *v6), each.mtu)
            for each in further
            for v4, v6 in [_addresses(pod, each)]
        ),
    )


def _dumps(netns: Path) -> tuple[Dump, Dump]:
    try:
        if NetworkNamespace.at(netns).is_host:
            raise TunnelError(f"network namespace {netns} is the node's own: a pod with hostNetwork has no tunnel")
        with connect(netns) as kernel:
            pod = _dump(kernel)
    except FileNotFoundError:
        raise TunnelError(f"there is no network namespace at {netns}") from None
    except OSError as error:
        raise TunnelError(f"network namespace {netns} cannot be read: {error}") from error
    return _host_dump(), pod


def _host_dump() -> Dump:
    try:
        with Rtnetlink() as kernel:
            return _dump(kernel)
    except OSError as error:
        raise TunnelError(f"the node's network cannot be read: {error}") from error


def _dump(kernel: Rtnetlink) -> Dump:
    return Dump(
        tuple(kernel.links()),
        tuple(kernel.addresses()),
        (*kernel.routes(socket.AF_INET), *kernel.routes(socket.AF_INET6)),
        tuple(kernel.neighbours()),
    )


def _primary(dump: Dump) -> tuple[Link, Route] | None:
    """The link of the default route, and that route: the best one's, or its sibling's with the lowest number."""
    return _default(dump, socket.AF_INET) or _default(dump, socket.AF_INET6)


def _default(dump: Dump, family: int) -> tuple[Link, Route] | None:
    """As `_primary`, of one family."""
    links = {link.number: link for link in dump.links}
    defaults = (route for route in dump.routes if not route.prefix and route.link and route.type == RTN_UNICAST)
    found = sorted((route for route in defaults if route.family == family), key=_metric)
    if not found:
        return None
    stem, _ = _split(links[found[0].link].name)
    siblings = [route for route in found if _split(links[route.link].name)[0] == stem]
    best = min(siblings, key=lambda route: _split(links[route.link].name)[1])
    return links[best.link], best


def _metric(route: Route) -> int:
    return route.metric


def _split(name: str) -> tuple[str, int]:
    """`eth10` is `eth`, 10; a name without a number comes last."""
    match = re.fullmatch(r"(\D*)(\d+)", name, re.ASCII)
    return (match[1], int(match[2])) if match else (name, sys.maxsize)


def _addresses(dump: Dump, link: Link) -> tuple[list[str], list[str]]:
    """A link's addresses with their prefix lengths: IPv4, then IPv6 other than link-local ones."""
    found = [
        ipaddress.ip_interface((address.address, address.prefix))
        for number, address in dump.addresses
        if number == link.number
    ]
    ipv4 = [str(each) for each in found if each.version == 4]
    return ipv4, [str(each) for each in found if each.version == 6 and not each.ip.is_link_local]


def _is_further(dump: Dump, link: Link) -> bool:
    return (
        link.type == ARPHRD_ETHER
        and not link.flags & IFF_LOOPBACK
        and bool(link.address)
        and any(_addresses(dump, link))
    )


def _routes(routes: Iterable[Route], names: dict[int, str]) -> tuple[apf.Route, ...]:
    """The routes of a guest: those of IPv4 and the first interface, then its others, then further interfaces'."""
    rank = {number: place for place, number in enumerate(names)}

    def order(route: Route) -> tuple[int, int, bytes, int, int]:
        return (rank[route.link], route.family, route.destination or b"", route.prefix, route.metric)

    return tuple(
        apf.Route(
            _destination(route),
            str(ipaddress.ip_address(route.gateway)) if route.gateway else "",
            names[route.link],
            _PROTOCOLS[route.protocol],
            _SCOPES.get(route.scope, ""),
        )
        for route in sorted((route for route in routes if route.link in names), key=order)
        if route.type == RTN_UNICAST and route.protocol in _PROTOCOLS
        and not (route.family == socket.AF_INET6 and ipaddress.ip_network(_destination(route)).is_link_local)
    )  # fmt: skip


def _destination(route: Route) -> str:
    size = 4 if route.family == socket.AF_INET else 16
    return str(ipaddress.ip_network((route.destination or bytes(size), route.prefix)))


def _subnet_routes(cidrs: Iterable[str], pod: Dump, netns: str, names: dict[int, str]) -> Iterable[apf.Route]:
    """Routes by the default route of each network's family, among the interfaces that the guest has."""
    for cidr in cidrs:
        try:
            network = ipaddress.ip_network(cidr)
        except ValueError as error:
            raise TunnelError(f"{cidr!r} is no network: {error} (pod-subnet-cidrs)") from None
        found = _default(pod, socket.AF_INET if network.version == 4 else socket.AF_INET6)
        if found is None or found[0].number not in names:
            _LOG.warning(
                "%s: the pod has no default route of IPv%d, and does not reach %s by the tunnel (pod-subnet-cidrs)",
                netns, network.version, network,
            )  # fmt: skip
            continue
        link, default = found
        yield apf.Route(str(network), str(ipaddress.ip_address(default.gateway)) if default.gateway else "", link.name)


def _neighbors(neighbours: Iterable[Neighbour], names: dict[int, str]) -> tuple[apf.Neighbor, ...]:
    rank = {number: place for place, number in enumerate(names)}
    known = (each for each in neighbours if each.link in names and each.state & NUD_PERMANENT)
    return tuple(
        apf.Neighbor(str(ipaddress.ip_address(each.address)), each.link_address.hex(":"), names[each.link])
        for each in sorted(known, key=lambda each: (rank[each.link], each.family, each.address))
        if each.link_address
    )
