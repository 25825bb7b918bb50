"""The node's end of a pod's tunnels: in the pod's namespace, joined to its interfaces.

The pod's own addresses stay on its interface there and never answer, as all that comes in is redirected.
Source: cloud-api-adaptor `pkg/podnetwork/tunneler/vxlan/workernode.go`. A device is made in the namespace at once; it
needs no name in the node's own.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kata_caa.apf import PodNetwork
from kata_caa.errors import TunnelError
from kata_caa.tunnel import notrack
from kata_caa.tunnel.links import DEFAULT_PORT, End, add, ends, remote_of
from kata_py.netlink import traffic, vxlan
from kata_py.netlink.namespace import connect
from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.vxlan import Vxlan

_DEVICE = "vxlan{}"  # the first one's number is 1


def set_up(netns: Path, network: PodNetwork, remote: str) -> None:
    """Connect a pod's namespace to its machine, in the place of what may be there of it. Blocks.

    Args:
        netns: The pod's namespace.
        network: The pod's network, with the tunnels' numbers.
        remote: The machine's address.

    Raises:
        TunnelError: It cannot be connected; what is made already is removed by `tear_down`.
    """
    tear_down(netns, network)
    other, port, tunnels = remote_of(remote), network.vxlan_port or DEFAULT_PORT, ends(network)
    notrack.add([end.vni for end in tunnels], other, port)
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with connect(netns) as inside, Rtnetlink() as here:
                for number, end in enumerate(tunnels, 1):
                    _join(here, inside, descriptor, _DEVICE.format(number), end, Vxlan(end.vni, other, port))
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise TunnelError(f"the pod's namespace {netns} cannot be connected to {remote}: {error}") from error


def tear_down(netns: Path, network: PodNetwork) -> None:
    """Remove whatever there is of a pod's tunnels; again is fine, and so is a namespace that has gone. Blocks.

    Raises:
        TunnelError: Something cannot be removed.
    """
    tunnels = ends(network)
    try:
        _separate(netns, tunnels)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # no file, or one that is no namespace any more
            raise TunnelError(f"the pod's namespace {netns} keeps its tunnels: {error}") from error
    notrack.remove([end.vni for end in tunnels])


def _join(here: Rtnetlink, inside: Rtnetlink, namespace: int, name: str, end: End, tunnel: Vxlan) -> None:
    links = {link.name: link for link in inside.links()}
    pod = links.get(end.interface.name)
    if pod is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), end.interface.name)
    # Larger packets than fit are cut by the kernel after they were wrapped, and so none is lost silently.
    device = add(here, inside, namespace, name, tunnel, mtu=pod.mtu)
    inside.keep_silent(device)
    for link in (pod, device):
        traffic.add_ingress(inside, link)
    traffic.redirect(inside, pod, device)
    traffic.redirect(inside, device, pod)
    inside.set_link(device, up=True)


def _separate(netns: Path, tunnels: tuple[End, ...]) -> None:
    vnis, names = {end.vni for end in tunnels}, {end.interface.name for end in tunnels}
    with connect(netns) as inside:
        links = inside.links()
        devices = [link for link in links if (found := vxlan.tunnel(link)) is not None and found.vni in vnis]
        ours = {device.number for device in devices}
        joined = traffic.ingress_links(inside)
        for link in links:
            if link.name in names and link.number in joined and _is_ours(inside, link, ours):
                traffic.delete_ingress(inside, link)
        for device in devices:
            inside.delete_link(device)


def _is_ours(kernel: Rtnetlink, link: Link, devices: set[int]) -> bool:
    """Whether all that comes in on a link goes to one of ours, or nowhere any more, or we had not come so far."""
    return all(each.target == 0 or each.target in devices for each in traffic.filters(kernel, link))
