"""Neighbours as hosts see them: `types.ARPNeighbor`, made known to the kernel.

Source: kata-containers' `src/agent/src/netlink.rs`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kata_agent.errors import AgentError
from kata_agent.network.interface import find, ip_bytes, link_address
from kata_protos.agent_types_pb2 import ARPNeighbor
from kata_py.netlink import rtnetlink
from kata_py.netlink.rtnetlink import NUD_PERMANENT, Rtnetlink


def add(neighbours: Iterable[ARPNeighbor]) -> None:
    """Add neighbours, or replace what is known of them. Blocks for a moment.

    Args:
        neighbours: Those without a state are permanent; `lladdr` may be missing.

    Raises:
        AgentError: A value has not its form, there is no link named `device`, or the kernel refuses.
    """
    with Rtnetlink() as kernel:
        links = kernel.links()
        for neighbour in neighbours:
            address = neighbour.toIPAddress.address
            if not address:
                raise AgentError("Unable to determine ip address of ARP neighbor")
            try:
                kernel.add_neighbour(_made(neighbour, find(links, neighbour.device).number))
            except OSError as error:
                raise AgentError(f"Failed to add ARP neighbor {address}: {error.strerror}") from error


def _made(neighbour: ARPNeighbor, link: int) -> rtnetlink.Neighbour:
    family, address = ip_bytes(neighbour.toIPAddress.address)
    if not 0 <= neighbour.state <= 0xFFFF:
        raise AgentError(f"ARP neighbor {neighbour.toIPAddress.address}: state {neighbour.state} is not below 65536")
    if not 0 <= neighbour.flags <= 0xFF:
        raise AgentError(f"ARP neighbor {neighbour.toIPAddress.address}: flags {neighbour.flags} are not below 256")
    return rtnetlink.Neighbour(
        link,
        family,
        address,
        link_address(neighbour.lladdr) if neighbour.lladdr else None,
        neighbour.state or NUD_PERMANENT,
        neighbour.flags,
    )
