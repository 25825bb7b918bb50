"""A pod's tunnels as both ends see them: which interface has which number."""

from __future__ import annotations

import ipaddress
from typing import Any, Final, NamedTuple

from kata_caa.apf import Interface, PodNetwork
from kata_caa.errors import TunnelError
from kata_py.netlink import vxlan
from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.vxlan import MAX_VNI, Vxlan

DEFAULT_PORT: Final = 4789
DEFAULT_VNI: Final = 555_000
OVERHEAD_V4, OVERHEAD_V6 = 50, 70  # bytes of Ethernet, IP, UDP and VXLAN around a pod's packet
_UNDERLAY: Final = 1500  # bytes that are assumed to pass between node and machine


Remote = ipaddress.IPv4Address | ipaddress.IPv6Address


class End(NamedTuple):
    """One tunnel.

    Attributes:
        interface: The pod's interface.
        vni: The number that both ends have.
    """

    interface: Interface
    vni: int


def ends(network: PodNetwork) -> tuple[End, ...]:
    """A pod's tunnels, the first interface's first."""
    first = Interface(
        network.interface,
        network.hardware_address,
        tuple(filter(None, (network.pod_ip, *network.pod_ips))),
        network.mtu,
    )
    return (
        End(first, network.vxlan_id or DEFAULT_VNI),
        *(End(each, each.vxlan_id) for each in network.interfaces),
    )


def add(here: Rtnetlink, inside: Rtnetlink, namespace: int, name: str, tunnel: Vxlan, **values: Any) -> Link:
    """Make a tunnel's device in a namespace; what carries its packets is ours.

    Older kernels refuse a name that somebody has here, though the device is for there: it gets its own afterwards.

    Args:
        here: Our network.
        inside: The namespace's.
        namespace: Its descriptor.
        name: What it is called in the end.
        tunnel: Its other end.
        values: As for `Rtnetlink.add_link`.

    Raises:
        OSError: The kernel refuses.
    """
    first = f"pp{tunnel.vni}"
    here.add_link(first, vxlan.KIND, vxlan.encode(tunnel), namespace=namespace, **values)
    link = next(link for link in inside.links() if link.name == first)
    inside.set_link(link, name=name)
    return link._replace(name=name)


def remote_of(text: str) -> Remote:
    """The address of a tunnel's other end.

    Raises:
        TunnelError: It is none.
    """
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise TunnelError(f"{text!r:.60} is no address of a tunnel's other end") from None


def inner_mtu(pod_mtu: int, remote: Remote) -> int:
    """What a machine's end may send at once, in bytes, so that it fits with all that is put around it."""
    most = _UNDERLAY - (OVERHEAD_V4 if remote.version == 4 else OVERHEAD_V6)
    return min(pod_mtu or most, most)


def free_vnis(count: int, minimum: int, taken: frozenset[int]) -> tuple[int, ...]:
    """Numbers that no tunnel here has, the lowest first.

    Args:
        count: How many.
        minimum: The lowest to take.
        taken: Those that records and namespaces of this node hold.

    Raises:
        TunnelError: There are not so many of 24 bits.
    """
    found: list[int] = []
    number = minimum
    while len(found) < count:
        if not 0 < number <= MAX_VNI:
            raise TunnelError(f"no number is left for a tunnel, from {minimum} up to {MAX_VNI}")
        if number not in taken:
            found.append(number)
        number += 1
    return tuple(found)
