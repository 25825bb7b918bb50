"""The node's end of a pod's tunnel: a VXLAN link in the pod's namespace, and all traffic redirected to and from it.

The pod's address stays where the network plug-in put it, and never answers there: what comes in is taken away before.

How it is made, step by step: rules against connection tracking; a WireGuard link in this namespace, if the tunnel is
encrypted (`kata_caa.tunnel.encryption`); a bridge in the pod's namespace; then for each interface of the pod a VXLAN
link, made in the pod's namespace at once with this one carrying its packets, a port of the bridge, silent and up; the
ingress discipline of both links; and a redirection each way. All of it is found again by what `Tunnel` holds, so
whoever has that on record before `set_up` can take down whatever a killed process has left.

The bridge is down and no frame ever passes it. But of a bridge's port alone the kernel's VXLAN driver answers a packet
that does not fit into the tunnel and may not be fragmented: to its sender, with the size that does fit. Otherwise a
tunnel over IPv6 loses such a packet without a word, and one over IPv4 cuts it into fragments, which not all clouds
let pass. (TCP would do without: the pod VM tells its own MTU.) A packet that may be fragmented and does not fit is cut
over IPv4; over IPv6 the kernel drops it, which is the one loss that stays.

Source: cloud-api-adaptor `pkg/podnetwork/tunneler/vxlan/workernode.go`; Linux `net/ipv4/ip_tunnel_core.c`,
skb_tunnel_check_pmtu.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from kata_caa.apf import PodNetwork
from kata_caa.errors import TunnelError
from kata_caa.tunnel import encryption, notrack
from kata_caa.tunnel.encryption import End
from kata_caa.tunnel.way import Way, link_to
from kata_py.netlink import traffic, vxlan
from kata_py.netlink.namespace import connect, make_link
from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.resource.blocking import off_loop

BRIDGE: Final = "ppmtu"
_NAME: Final = "vxlan"
_BRIDGE_KIND: Final = "bridge"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A pod's tunnel, with all that is needed to take it down.

    Attributes:
        netns: Path of the pod's network namespace.
        vni: Number of the tunnel of the pod's first interface.
        remote: The pod VM's address: its first, or its second with a dedicated interface.
        port: UDP port of both ends.
        encrypted: Whether it goes over a WireGuard link.
    """

    netns: str
    vni: int
    remote: str
    port: int = vxlan.DEFAULT_PORT
    encrypted: bool = False


async def set_up(tunnel: Tunnel, network: PodNetwork, end: End | None = None) -> None:
    """Make the node's end of a pod's tunnel. After a failure `tear_down` takes down what was made.

    Args:
        tunnel: Where it goes; on record already, so that it can be taken down.
        network: What was found in the pod's namespace, with the numbers of its tunnels.
        end: The node's end of the encryption, if the tunnel is encrypted.

    Raises:
        TunnelError: The namespace or an interface is gone, somebody else filters an interface's traffic, the number
            is taken, there is no way to the pod VM, or the kernel refuses; says which.
    """
    if tunnel.encrypted != (end is not None):
        raise ValueError(f"tunnel {tunnel.vni} needs keys if it is encrypted, and only then")
    await off_loop(_check, tunnel, network)
    await notrack.add(tunnel.vni, _inner(tunnel), tunnel.port)
    await off_loop(_connect, tunnel, network, end)


async def tear_down(tunnel: Tunnel) -> None:
    """Take down all that `set_up` made, as far as it came. What is gone already, even the namespace, is no error.

    Args:
        tunnel: What `set_up` was given.

    Raises:
        TunnelError: Something is there and cannot be removed; the rest is removed all the same.
    """
    async with AsyncExitStack() as stack:  # each step, whatever becomes of those before
        stack.push_async_callback(notrack.remove, tunnel.vni, _inner(tunnel).version)
        if tunnel.encrypted:
            stack.push_async_callback(off_loop, _decrypt, tunnel)
        await off_loop(_disconnect, tunnel)


def _check(tunnel: Tunnel, network: PodNetwork) -> None:
    """Refuse what cannot be done before anything is."""
    with _refused(tunnel), connect(tunnel.netns) as pod:
        links, filtered = pod.links(), traffic.ingress_links(pod)
        if any(link.name == BRIDGE for link in links):
            raise TunnelError(f"network namespace {tunnel.netns} has a tunnel already: {BRIDGE} is there")
        for name, _ in _interfaces(tunnel, network):
            if _find(tunnel, links, name).number in filtered:
                raise TunnelError(
                    f"network namespace {tunnel.netns}: {name} has an ingress queueing discipline already, "
                    "and a tunnel would take its traffic away"
                )


def _connect(tunnel: Tunnel, network: PodNetwork, end: End | None) -> None:
    with _refused(tunnel), Rtnetlink() as host, connect(tunnel.netns) as pod, _opened(tunnel.netns) as descriptor:
        way = _way(tunnel, end)
        bridge = _bridge(tunnel, pod)
        for name, vni in _interfaces(tunnel, network):
            links = pod.links()
            inner, device = _find(tunnel, links, name), _free_name(links)
            # No frame may be larger than the link that it is redirected to, should the kernel ever ask. Over a link of
            # its own, a tunnel cannot have more than fits; what does not is answered by the bridge's port.
            mtu = min(inner.mtu, way.tunnel_mtu) if way.lower else inner.mtu
            data = vxlan.encode(way.vxlan(vni, tunnel.port))
            outer = make_link(host, pod, descriptor, device, vxlan.KIND, data, number=vni, mtu=mtu)
            if bridge is not None:
                pod.set_master(outer, bridge.number)
            pod.keep_silent(outer)
            pod.set_link(outer, up=True)
            for link in (inner, outer):
                traffic.add_ingress(pod, link)
            traffic.redirect(pod, outer, inner)
            traffic.redirect(pod, inner, outer)


def _way(tunnel: Tunnel, end: End | None) -> Way:
    remote = _remote(tunnel)
    if end is None:
        return Way(remote, 0)  # as large as routes allow, packet by packet
    link = link_to(remote)
    if link is None:
        raise TunnelError(f"the node has no route to the pod VM at {remote}, or no address to send from")
    return encryption.make(tunnel.vni, end, Way(remote, link.mtu))


def _bridge(tunnel: Tunnel, pod: Rtnetlink) -> Link | None:
    try:
        pod.add_link(BRIDGE, _BRIDGE_KIND)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _LOG.warning("the node's kernel has no bridges: senders are not told that packets do not fit into the tunnel")
        return None
    return _find(tunnel, pod.links(), BRIDGE)


def _disconnect(tunnel: Tunnel) -> None:
    try:
        pod = connect(tunnel.netns)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.ESRCH):
            return  # the namespace is gone, and all its links with it
        raise TunnelError(f"network namespace {tunnel.netns}: {error.strerror}") from error
    with _refused(tunnel), pod:
        links, filtered = pod.links(), traffic.ingress_links(pod)
        own = {link.number: link for link in links if _is_own(link, tunnel)}
        for link in links:
            if link.number in filtered and _redirects(pod, link, own):
                traffic.delete_ingress(pod, link)
        for link in own.values():
            pod.delete_link(link)
        for link in links:
            if (link.name, link.kind) == (BRIDGE, _BRIDGE_KIND):
                pod.delete_link(link)


def _decrypt(tunnel: Tunnel) -> None:
    with _refused(tunnel):
        encryption.remove(tunnel.vni)


def _redirects(pod: Rtnetlink, link: Link, own: dict[int, Link]) -> bool:
    """Whether a link's ingress discipline is the tunnel's: all filters lead to or from it, if there are any yet."""
    if link.number in own:
        return True
    found = traffic.filters(pod, link)
    if not found:
        return bool(own)  # the discipline is made after the tunnel's link and before the filter
    return all(each.target is not None and (each.target in own or each.target == 0) for each in found)


def _is_own(link: Link, tunnel: Tunnel) -> bool:
    found = vxlan.tunnel(link)
    return found is not None and (found.remote, found.port) == (_inner(tunnel), tunnel.port)


def _interfaces(tunnel: Tunnel, network: PodNetwork) -> list[tuple[str, int]]:
    """The pod's interfaces, each with the number of its tunnel."""
    return [(network.interface, tunnel.vni), *((each.name, each.vxlan_id) for each in network.interfaces)]


def _find(tunnel: Tunnel, links: list[Link], name: str) -> Link:
    for link in links:
        if link.name == name:
            return link
    raise TunnelError(f"network namespace {tunnel.netns} has no interface {name}")


def _free_name(links: list[Link]) -> str:
    taken = {link.name for link in links}
    return next(name for number in range(1, len(taken) + 2) if (name := f"{_NAME}{number}") not in taken)


def _remote(tunnel: Tunnel) -> IPv4Address | IPv6Address:
    try:
        return ip_address(tunnel.remote)
    except ValueError:
        raise TunnelError(f"the pod VM's address {tunnel.remote!r} is none") from None


def _inner(tunnel: Tunnel) -> IPv4Address | IPv6Address:
    """Where the VXLAN's packets go, which may be inside of others."""
    return encryption.MACHINE if tunnel.encrypted else _remote(tunnel)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _refused(tunnel: Tunnel) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise TunnelError(
            f"there is no network namespace at {error.filename}: it is gone, or was never made"
        ) from error
    except (OSError, ValueError) as error:
        raise TunnelError(f"tunnel {tunnel.vni} in network namespace {tunnel.netns}: {error}") from error
