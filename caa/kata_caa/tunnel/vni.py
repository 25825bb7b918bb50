"""Numbers of tunnels: each that a node uses is another one.

The kernel keys a VXLAN by its number in the namespace that carries its packets, so a number is taken as long as any pod
of the node has it, whichever daemon gave it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from kata_caa.apf import PodNetwork
from kata_caa.errors import TunnelError
from kata_py.netlink import vxlan
from kata_py.netlink.namespace import connect
from kata_py.netlink.rtnetlink import Rtnetlink

NAMESPACES: Final = Path("/run/netns")

_LOG = logging.getLogger(__name__)


def free_vni(minimum: int, taken: Collection[int]) -> int:
    """The lowest number that nobody has.

    Args:
        minimum: Where to begin.
        taken: Numbers that records hold and that `held` found.

    Raises:
        TunnelError: There is none of 24 bits.
    """
    if not 0 <= minimum <= vxlan.MAX_VNI:
        raise TunnelError(f"the first number of VXLANs cannot be {minimum}: it has 24 bits (vxlan-min-id)")
    held = frozenset(taken)
    for vni in range(minimum, vxlan.MAX_VNI + 1):
        if vni not in held:
            return vni
    raise TunnelError(f"all numbers of VXLANs from {minimum} on are taken (vxlan-min-id)")


def numbered(network: PodNetwork, index: int, minimum: int, taken: Collection[int]) -> PodNetwork:
    """A pod's network with free numbers for its tunnels, one for each interface.

    Args:
        network: What was found in the pod's namespace.
        index: The pod's number on its node.
        minimum: The first number that may be given.
        taken: Numbers that others have.

    Raises:
        TunnelError: There are not enough.
    """
    held = set(taken)
    first = free_vni(minimum, held)
    held.add(first)
    interfaces = []
    for interface in network.interfaces:
        interfaces.append(replace(interface, vxlan_id=free_vni(minimum, held)))
        held.add(interfaces[-1].vxlan_id)
    return replace(network, index=index, vxlan_id=first, interfaces=tuple(interfaces))


def held(namespaces: Path = NAMESPACES) -> set[int]:
    """The numbers that links of this namespace and of all that have a name carry. Blocks: not for the event loop.

    Args:
        namespaces: Where namespaces are mounted.

    Raises:
        OSError: The kernel refuses to list this namespace's links.
    """
    with Rtnetlink() as kernel:
        found = _carried(kernel)
    if namespaces.is_dir():
        for path in namespaces.iterdir():
            try:
                with connect(path) as kernel:
                    found |= _carried(kernel)
            except OSError as error:  # one that is just going, or a file that is left of one
                _LOG.debug("passing over the network namespace %s: %s", path, error)
    return found


def _carried(kernel: Rtnetlink) -> set[int]:
    return {tunnel.vni for link in kernel.links() if (tunnel := vxlan.tunnel(link)) is not None}
