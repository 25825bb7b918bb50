"""What carries a tunnel's packets: the network between node and pod VM as it is, or a WireGuard link across it.

Runs at both ends: the standard library, and kata_py.netlink.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.vxlan import Vxlan

MIN_MTU: Final = 1280  # what IPv6 wants
NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH)

HEADERS: Final = {4: 50, 6: 70}  # bytes of IP, UDP, VXLAN and inner Ethernet headers
_ETHERNET_MTU: Final = 1500


class Way(NamedTuple):
    """The way to a tunnel's other end.

    Attributes:
        remote: The other end's address.
        link_mtu: Bytes that its link takes.
        local: Our address, where it is that of one link alone.
        lower: That link's number.
    """

    remote: IPv4Address | IPv6Address
    link_mtu: int
    local: IPv6Address | None = None
    lower: int = 0

    @property
    def mtu(self) -> int:
        """Bytes that a packet may have on it: no more than Ethernet's, as not all of the way need take more."""
        return min(self.link_mtu, _ETHERNET_MTU)

    @property
    def tunnel_mtu(self) -> int:
        """Bytes that a packet in the tunnel may have; where that is too little for IPv6, the tunnel's own are cut."""
        return max(self.mtu - HEADERS[self.remote.version], MIN_MTU)

    def vxlan(self, vni: int, port: int) -> Vxlan:
        """A tunnel that takes this way."""
        return Vxlan(vni, self.remote, port, self.local, self.lower)


def link_to(remote: IPv4Address | IPv6Address) -> Link | None:
    """The link that leads to an address, if there is one with an address to send from. Blocks for a moment.

    Raises:
        OSError: The kernel refuses to tell.
    """
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    with Rtnetlink() as kernel:
        try:
            route = kernel.route_to(family, remote.packed)
        except OSError as error:
            if error.errno in NO_WAY:
                return None
            raise
        if not route.preferred_source or not any(route.preferred_source):
            return None
        return next((link for link in kernel.links() if link.number == route.link), None)
