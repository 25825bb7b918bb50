"""The pod VM's end of a tunnel: the pod's network, rebuilt in a namespace of the virtual machine.

Each interface of the pod is a VXLAN link with that interface's name, hardware address and IP addresses. It is made
in the namespace at once, with the machine's own network carrying its packets, encrypted if `apf.json` says so.

Runs in the guest: the standard library, and kata_py.netlink. Source: cloud-api-adaptor `pkg/podnetwork/podnode.go`,
`pkg/podnetwork/tunneler/vxlan/podnode.go`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from kata_caa.apf import Encryption, Neighbor, PodNetwork, Route
from kata_caa.errors import TunnelError
from kata_caa.tunnel import external, notrack
from kata_caa.tunnel.way import NO_WAY, Way, link_to
from kata_py.netlink import namespace as namespaces
from kata_py.netlink import rtnetlink, vxlan
from kata_py.netlink.rtnetlink import Address, Link, Rtnetlink

NAMESPACE: Final = Path("/run/netns/podns")
MAX_MTU: Final = 1450

_CONNTRACK: Final = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_TIMEOUT: Final = 180.0  # seconds
_NEWS: Final = 1 << 16  # bytes
_GROUPS: Final = (
    rtnetlink.RTMGRP_LINK
    | rtnetlink.RTMGRP_IPV4_IFADDR | rtnetlink.RTMGRP_IPV4_ROUTE
    | rtnetlink.RTMGRP_IPV6_IFADDR | rtnetlink.RTMGRP_IPV6_ROUTE
)  # fmt: skip
_EVERYWHERE: Final = "0.0.0.0/0"
_KERNEL_METRIC: Final = 256  # of the kernel's own routes of IPv6
_PROTOCOLS: Final = {
    "": rtnetlink.RTPROT_BOOT,
    "static": rtnetlink.RTPROT_STATIC,
    "boot": rtnetlink.RTPROT_BOOT,
    "dhcp": rtnetlink.RTPROT_DHCP,
    "kernel": rtnetlink.RTPROT_KERNEL,
}
_SCOPES: Final = {"": 0, "universe": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
_STATES: Final = {
    "none": 0, "incomplete": 0x01, "reachable": 0x02, "stale": 0x04, "delay": 0x08, "probe": 0x10, "failed": 0x20,
    "noarp": 0x40, "permanent": 0x80,
}  # fmt: skip

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An interface of the pod, in the kernel's terms."""

    name: str
    address: bytes
    mtu: int
    addresses: tuple[Address, ...]
    tunnel: vxlan.Vxlan


async def set_up(network: PodNetwork, namespace: Path = NAMESPACE, *, timeout: float = _TIMEOUT) -> None:
    """Make the pod's network, unless it is there as wanted; what is there otherwise is replaced.

    Args:
        network: The pod's network.
        namespace: Where the pod's namespace is found, or mounted once it is made.
        timeout: Seconds to wait for the machine's own network.

    Raises:
        TunnelError: A value has not its form, the machine cannot reach the node in time, or the kernel refuses.
    """
    worker = _worker(network)
    link = await underlay(worker, timeout)
    way = Way(worker, link.mtu)
    if network.encryption is not None:
        way = await asyncio.to_thread(_encrypted, network.encryption, network.vxlan_id, way)
    wanted = interfaces(network, way)
    if _CONNTRACK.exists():  # else nobody in this machine follows connections, and asking would load what does
        await notrack.add(network.vxlan_id, way.remote, network.vxlan_port or vxlan.DEFAULT_PORT)
    await asyncio.to_thread(_build, network, wanted, namespace, link)


async def underlay(worker: IPv4Address | IPv6Address, timeout: float = _TIMEOUT) -> Link:
    """The machine's link to the node, as soon as there is a route with an address to send from.

    Args:
        worker: The node's address.
        timeout: Seconds to wait.

    Raises:
        TunnelError: There is none in time.
        OSError: The kernel tells no news.
    """
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as news:
        news.bind((0, _GROUPS))  # before the first look, so that nothing comes between
        try:
            async with asyncio.timeout(timeout):
                while (link := await asyncio.to_thread(link_to, worker)) is None:
                    await _next(news)
        except TimeoutError:
            raise TunnelError(
                f"the pod VM has no route to the node {worker}, or no address of its own, after {timeout:g} s: "
                "look at its DHCP and at the cloud's subnet"
            ) from None
    return link


def interfaces(network: PodNetwork, way: Way) -> list[_Wanted]:
    """The pod's interfaces, in the kernel's terms.

    Args:
        network: The pod's network.
        way: How the node is reached.

    Raises:
        TunnelError: A value has not its form.
    """
    port = network.vxlan_port or vxlan.DEFAULT_PORT
    ips = tuple(ip for ip in (network.pod_ip, *network.pod_ips) if ip)
    if not network.interface or not ips:
        raise TunnelError("apf.json does not say the pod's interface, or not its address")
    rows = [
        (network.interface, network.hardware_address, ips, network.mtu, network.vxlan_id),
        *((each.name, each.hardware_address, each.addresses, each.mtu, each.vxlan_id) for each in network.interfaces),
    ]
    return [
        _Wanted(
            name,
            _hardware(hardware_address),
            min(mtu or MAX_MTU, way.tunnel_mtu),
            tuple(_address(text) for text in texts),
            way.vxlan(vni, port),
        )
        for name, hardware_address, texts, mtu, vni in rows
    ]


def _encrypted(encryption: Encryption, vni: int, way: Way) -> Way:
    from kata_caa.tunnel.encryption import machine_end, make

    try:
        return make(vni, machine_end(encryption, way.remote), way)
    except OSError as error:
        raise TunnelError(f"the encryption of tunnel {vni}: {error}") from error


def _build(network: PodNetwork, wanted: list[_Wanted], path: Path, underlay: Link) -> None:
    try:
        namespaces.make(path)
        with namespaces.connect(path) as pod, Rtnetlink() as own:
            loopback = next(link for link in pod.links() if link.flags & rtnetlink.IFF_LOOPBACK)
            if not loopback.is_up:
                pod.set_link(loopback, up=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not _is_there(network, wanted, pod):
                    _remove(wanted, pod)
                    for each in wanted:
                        _make(each, own, pod, descriptor)
                    _furnish(network, pod)
                if network.external_via_pod_vm:
                    _divert(own, pod, descriptor, underlay)
            finally:
                os.close(descriptor)
    except (OSError, ValueError) as error:
        raise TunnelError(f"the pod's network in {path}: {error}") from error


def _divert(own: Rtnetlink, pod: Rtnetlink, descriptor: int, underlay: Link) -> None:
    """Let the pod's traffic go out by the machine's second interface; without one it goes through the tunnel."""
    try:
        external.divert(own, pod, descriptor, underlay.number)
    except (TunnelError, OSError) as error:
        _LOG.warning("traffic that leaves the cluster goes through the tunnel: %s", error)


def _is_there(network: PodNetwork, wanted: list[_Wanted], pod: Rtnetlink) -> bool:
    """Whether all that is wanted is there already: what is left of a forwarder that was started before."""
    links = {link.name: link for link in pod.links()}
    addresses = pod.addresses()
    for each in wanted:
        link = links.get(each.name)
        if link is None or not link.is_up or (link.address, link.mtu) != (each.address, each.mtu):
            return False
        if vxlan.tunnel(link) != each.tunnel or not {(link.number, ip) for ip in each.addresses} <= set(addresses):
            return False
    numbers, given = _numbers(network, links.values()), external.external_link(list(links.values()))
    found = [route for family in (socket.AF_INET, socket.AF_INET6) for route in pod.routes(family)]
    routes = {_key(route) for route in found}
    diverted = {route.family for route in external.defaults(found) if given is not None and route.link == given.number}
    known = {each._replace(flags=0) for each in pod.neighbours()}
    wanted_routes = (_kernel_route(route, numbers) for route in network.routes)
    return all(
        _key(route) in routes or (route.family in diverted and not route.prefix) for route in wanted_routes
    ) and all(_kernel_neighbour(each, numbers) in known for each in network.neighbors)


def _remove(wanted: list[_Wanted], pod: Rtnetlink) -> None:
    """Make room: what is left of an earlier configuration goes, and its addresses and routes with it."""
    names, tunnels = {each.name for each in wanted}, {each.tunnel.vni for each in wanted}
    for link in pod.links():
        tunnel = vxlan.tunnel(link)
        if tunnel is not None and (link.name in names or tunnel.vni in tunnels):
            pod.delete_link(link)


def _make(wanted: _Wanted, own: Rtnetlink, pod: Rtnetlink, descriptor: int) -> None:
    link = namespaces.make_link(
        own, pod, descriptor, wanted.name, vxlan.KIND, vxlan.encode(wanted.tunnel), number=wanted.tunnel.vni,
        address=wanted.address, mtu=wanted.mtu,
    )  # fmt: skip
    for address in wanted.addresses:
        # The route to the address's network is among the pod's routes, if the network plug-in left it.
        pod.add_address(link, address, _broadcast(address), prefix_route=False)
    pod.set_link(link, up=True)


def _furnish(network: PodNetwork, pod: Rtnetlink) -> None:
    """Give the pod its routes and neighbours."""
    numbers = _numbers(network, pod.links())
    _route(network.routes, pod, numbers)
    for neighbor in network.neighbors:
        pod.add_neighbour(_kernel_neighbour(neighbor, numbers))


def _numbers(network: PodNetwork, links: Iterable[Link]) -> dict[str, int]:
    """Numbers of links by name; where none is said, the pod's first interface is meant."""
    numbers = {link.name: link.number for link in links}
    return {"": numbers[network.interface], **numbers}


def _route(routes: Iterable[Route], pod: Rtnetlink, numbers: dict[str, int]) -> None:
    """Add routes; those without a gateway go first, as they are how gateways are reached."""
    for route in sorted(routes, key=lambda route: bool(route.gateway)):
        made = _kernel_route(route, numbers)
        try:
            _add_route(made, pod)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"route to {route.destination} via {route.gateway}") from error


def _add_route(route: rtnetlink.Route, pod: Rtnetlink) -> None:
    try:
        pod.add_route(route, replace=False)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return  # the better one of two, which comes first
        if error.errno not in NO_WAY or route.gateway is None:
            raise
        # A gateway outside of all networks, which the network plug-in has called on-link; apf.json cannot say that.
        pod.add_route(route._replace(flags=rtnetlink.RTNH_F_ONLINK), replace=False)


def _kernel_route(route: Route, numbers: dict[str, int]) -> rtnetlink.Route:
    network = ipaddress.ip_interface(route.destination or _EVERYWHERE).network
    gateway = ipaddress.ip_address(route.gateway).packed if route.gateway else None
    scope = _SCOPES[route.scope]
    if network.version == 4 and gateway is None:
        scope = rtnetlink.RT_SCOPE_LINK
    return rtnetlink.Route(
        socket.AF_INET if network.version == 4 else socket.AF_INET6,
        network.network_address.packed if network.prefixlen else None,
        network.prefixlen,
        gateway=gateway,
        link=_number(route.device, numbers, f"the route to {route.destination}"),
        scope=scope,
        protocol=_PROTOCOLS[route.protocol],
        metric=_KERNEL_METRIC if network.version == 6 and route.protocol == "kernel" else 0,
    )


def _kernel_neighbour(neighbor: Neighbor, numbers: dict[str, int]) -> rtnetlink.Neighbour:
    address = ipaddress.ip_address(neighbor.address)
    return rtnetlink.Neighbour(
        _number(neighbor.device, numbers, f"the neighbour {neighbor.address}"),
        socket.AF_INET if address.version == 4 else socket.AF_INET6,
        address.packed,
        _hardware(neighbor.hardware_address),
        _STATES[neighbor.state],
        0,
    )


def _key(route: rtnetlink.Route) -> tuple[int, bytes | None, int, bytes | None, int]:
    return (route.family, route.destination, route.prefix, route.gateway, route.link)


def _number(device: str, numbers: dict[str, int], whose: str) -> int:
    try:
        return numbers[device]
    except KeyError:
        raise ValueError(f"{whose} is over {device!r}, which is no interface of the pod") from None


def _worker(network: PodNetwork) -> IPv4Address | IPv6Address:
    try:
        return ipaddress.ip_interface(network.worker_ip).ip
    except ValueError:
        raise TunnelError(f"apf.json: the node's address {network.worker_ip!r} is none (worker-node-ip)") from None


def _address(text: str) -> Address:
    interface = ipaddress.ip_interface(text)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    return Address(family, interface.ip.packed, interface.network.prefixlen)


def _broadcast(address: Address) -> bytes | None:
    if address.family != socket.AF_INET or address.prefix > 30:
        return None
    return ipaddress.ip_network((address.address, address.prefix), strict=False).broadcast_address.packed


def _hardware(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise TunnelError(f"apf.json: the hardware address {text!r} is none") from None


async def _next(news: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().sock_recv(news, _NEWS)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # more news than the socket holds: a look is due all the same
            raise
