"""The machine's end of a pod's tunnels: the pod's own interfaces, in a namespace for its containers.

Source: cloud-api-adaptor `pkg/podnetwork/podnode.go`, `pkg/podnetwork/tunneler/vxlan/podnode.go`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

from kata_caa.apf import PodNetwork
from kata_caa.apf import Route as PodRoute
from kata_caa.errors import TunnelError
from kata_caa.tunnel.inspection import PROTOCOLS, SCOPES
from kata_caa.tunnel.links import DEFAULT_PORT, End, add, ends, inner_mtu, remote_of
from kata_py.netlink import namespace as namespaces
from kata_py.netlink import rtnetlink as rt
from kata_py.netlink import vxlan
from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.vxlan import Vxlan

_CONNTRACK: Final = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_PROTOCOLS: Final = {name: number for number, name in PROTOCOLS.items()}
_SCOPES: Final = {"universe": 0, **{name: number for number, name in SCOPES.items()}}


async def set_up(network: PodNetwork, namespace: Path) -> None:
    """Have the pod's interfaces in a namespace, which is made if it is not there. Again is fine.

    Args:
        network: The pod's network.
        namespace: Where it shall be.

    Raises:
        TunnelError: It cannot be made.
    """
    await asyncio.to_thread(_set_up, network, namespace)


def _set_up(network: PodNetwork, namespace: Path) -> None:
    remote = remote_of(network.worker_ip.partition("/")[0])
    tunnels, port = ends(network), network.vxlan_port or DEFAULT_PORT
    try:
        namespaces.make(namespace)
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with namespaces.connect(namespace) as inside, Rtnetlink() as here:
                links = {link.name: link for link in inside.links()}
                inside.set_link(links["lo"], up=True)
                for end in tunnels:
                    _interface(here, inside, descriptor, end, Vxlan(end.vni, remote, port))
                _routes(inside, network.routes)
                _neighbours(inside, network)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise TunnelError(f"the pod's network cannot be made in {namespace}: {error}") from error
    if _CONNTRACK.exists():  # else nobody follows connections here
        from kata_caa.tunnel import notrack

        notrack.add([end.vni for end in tunnels], remote, port)


def _interface(here: Rtnetlink, inside: Rtnetlink, namespace: int, end: End, tunnel: Vxlan) -> None:
    interface = end.interface
    link = None
    for present in inside.links():
        found = vxlan.tunnel(present)
        if present.name == interface.name and found == tunnel:
            link = present
        elif present.name == interface.name or (found is not None and found.vni == tunnel.vni):
            inside.delete_link(present)  # of another start, which may have got half way
    if link is None:
        assert tunnel.remote is not None
        address = bytes.fromhex(interface.hardware_address.replace(":", ""))
        mtu = inner_mtu(interface.mtu, tunnel.remote)
        link = add(here, inside, namespace, interface.name, tunnel, address=address, mtu=mtu)
    for text in interface.addresses:
        inside.add_address(link, _address(text), prefix_route=False)  # the pod's routes say what there is
    inside.set_link(link, up=True)


def _routes(inside: Rtnetlink, routes: tuple[PodRoute, ...]) -> None:
    """Those to neighbours first: the gateways of the others are among them."""
    links = {link.name: link for link in inside.links()}
    for route in sorted(routes, key=lambda route: bool(route.gateway)):
        link = links.get(route.device)
        if link is None:
            raise TunnelError(f"a route to {route.destination} goes over {route.device}, which the pod does not have")
        inside.add_route(_route(route, link))


def _route(route: PodRoute, link: Link) -> rt.Route:
    target = ipaddress.ip_network(route.destination, strict=False)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    scope = _SCOPES.get(route.scope, rt.RT_SCOPE_UNIVERSE)
    if not route.gateway and family == socket.AF_INET:
        scope = rt.RT_SCOPE_LINK
    return rt.Route(
        family=family,
        destination=target.network_address.packed if target.prefixlen else None,
        prefix=target.prefixlen,
        gateway=ipaddress.ip_address(route.gateway).packed if route.gateway else None,
        link=link.number,
        scope=scope,
        protocol=_PROTOCOLS.get(route.protocol, rt.RTPROT_BOOT),
    )


def _neighbours(inside: Rtnetlink, network: PodNetwork) -> None:
    links = {link.name: link for link in inside.links()}
    for each in network.neighbors:
        link = links.get(each.device)
        if link is None or each.state != "permanent":
            continue
        address = ipaddress.ip_address(each.address)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        hardware = bytes.fromhex(each.hardware_address.replace(":", ""))
        inside.add_neighbour(rt.Neighbour(link.number, family, address.packed, hardware, rt.NUD_PERMANENT, 0))


def _address(text: str) -> rt.Address:
    interface = ipaddress.ip_interface(text)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    return rt.Address(family, interface.ip.packed, interface.network.prefixlen)
