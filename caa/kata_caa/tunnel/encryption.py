"""A tunnel's encryption: at either end a WireGuard link, which carries the tunnel's VXLAN and nothing else.

Inside, the ends have link-local addresses, the same two on every link. This is what keeps out what is not encrypted:
for a VXLAN between link-local addresses the kernel takes packets from the link alone that it was made over, and with
any other address from everywhere and everybody. And it keeps in what is to be encrypted: such an address is reached
over that link or not at all, and with the link goes the VXLAN.

Both ends dial. The node dials the pod VM's port, the only one that has to be open, and goes on until it is answered:
every five seconds, and after ninety with pauses of 25. The pod VM dials the node's as soon as it is up; a firewall that
follows connections takes that for the answer. Where it does not, or the node had to take another port, the pod waits
for the node's next try.

Runs at both ends: the standard library, and kata_py.netlink. Source: Donenfeld, "WireGuard: Next Generation Kernel
Network Tunnel", sections 5 and 6; Linux `drivers/net/vxlan/vxlan_core.c`, vxlan_vs_find_vni,
`drivers/net/wireguard/device.c`.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from kata_caa.apf import Encryption
from kata_caa.errors import TunnelError
from kata_caa.tunnel.way import HEADERS, MIN_MTU, Way
from kata_py.netlink import wireguard
from kata_py.netlink.rtnetlink import Address, Link, Rtnetlink

NODE: Final = IPv6Address("fe80::1")
MACHINE: Final = IPv6Address("fe80::2")

_NAME: Final = "ppwg"  # and the tunnel's number, so that whatever is left is found
_HEADERS: Final = {4: 60, 6: 80}  # bytes of IP, UDP and WireGuard headers, and of the seal
_MIN_MTU: Final = MIN_MTU + HEADERS[6]  # bytes of a packet inside that carries the smallest tunnel of all
_KEEPALIVE: Final = 25  # seconds; firewalls forget after 30
_IPV6: Final = Path("/proc/sys/net/ipv6/conf")


@dataclass(frozen=True, slots=True)
class End:
    """One end.

    Attributes:
        device: Its keys and its peer.
        address: Its address inside; the peer's is what its peer is allowed.
        any_port: Whether another UDP port will do, should somebody have this one.
    """

    device: wireguard.Device
    address: IPv6Address
    any_port: bool = False


def machine_end(encryption: Encryption, worker: IPv4Address | IPv6Address) -> End:
    """The pod VM's end.

    Args:
        encryption: What `apf.json` says.
        worker: The node's address.
    """
    endpoint = wireguard.Endpoint(worker, encryption.node_port) if encryption.node_port else None
    peer = wireguard.Peer(encryption.node_key, encryption.preshared_key, endpoint, NODE, _KEEPALIVE)
    return End(wireguard.Device(encryption.private_key, encryption.port, peer), MACHINE)


def node_end(encryption: Encryption, private_key: bytes, machine_key: bytes, remote: IPv4Address | IPv6Address) -> End:
    """The node's end.

    Args:
        encryption: What the pod VM's `apf.json` says.
        private_key: The node's.
        machine_key: The pod VM's public one.
        remote: The pod VM's address.
    """
    endpoint = wireguard.Endpoint(remote, encryption.port)
    peer = wireguard.Peer(machine_key, encryption.preshared_key, endpoint, MACHINE, _KEEPALIVE)
    return End(wireguard.Device(private_key, encryption.node_port, peer), NODE, any_port=True)


def obstacle() -> str:
    """Why this machine cannot encrypt tunnels, and what to do; empty if it can. Blocks while a module is loaded.

    Raises:
        OSError: The kernel cannot be asked.
    """
    if not wireguard.is_supported():
        return (
            f"the kernel {os.uname().release} has no WireGuard: load its module (modprobe wireguard), or boot one "
            "that has it (5.6 or later, CONFIG_WIREGUARD)"
        )
    if not _IPV6.is_dir():
        return "the kernel has IPv6 turned off, which encrypted tunnels use inside: boot without ipv6.disable=1"
    return ""


def make(vni: int, end: End, way: Way) -> Way:
    """Make one end, or have what is left of it be as wanted. Blocks.

    Args:
        vni: The tunnel's number.
        end: Which.
        way: How the other end is reached without.

    Returns:
        How it is reached with it.

    Raises:
        TunnelError: This machine cannot encrypt tunnels; says why.
        OSError: The kernel refuses.
    """
    if why := obstacle():
        raise TunnelError(f"the tunnel is to be encrypted, and {why}; or set tunnel-encryption to none")
    # Where there is no room for the least tunnel, WireGuard's own packets are cut.
    mtu = max(way.mtu - _HEADERS[way.remote.version], _MIN_MTU)
    with Rtnetlink() as kernel:
        link = _link(kernel, vni)
        if link is None:
            kernel.add_link(_name(vni), wireguard.KIND, mtu=mtu)
            link = _link(kernel, vni)
            assert link is not None
        elif link.mtu != mtu:
            kernel.set_link(link, mtu=mtu)
        _begin(kernel, link, end)
        _allow_ipv6(link)
        kernel.add_address(link, Address(socket.AF_INET6, end.address.packed, 64))
    return Way(end.device.peer.allowed, mtu, end.address, link.number)


def remove(vni: int) -> None:
    """Remove an end; one that is gone already is no error. Blocks.

    Args:
        vni: The tunnel's number.

    Raises:
        OSError: The kernel refuses.
    """
    with Rtnetlink() as kernel:
        link = _link(kernel, vni)
        if link is not None:
            kernel.delete_link(link)


def _name(vni: int) -> str:
    return f"{_NAME}{vni}"


def _link(kernel: Rtnetlink, vni: int) -> Link | None:
    return next((link for link in kernel.links() if (link.name, link.kind) == (_name(vni), wireguard.KIND)), None)


def _begin(kernel: Rtnetlink, link: Link, end: End) -> None:
    wireguard.configure(link, end.device)
    try:
        kernel.set_link(link, up=True)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not end.any_port:
            raise
        wireguard.configure(link, replace(end.device, port=0))
        kernel.set_link(link, up=True)


def _allow_ipv6(link: Link) -> None:
    """Let a link have IPv6, also where others shall not."""
    switch = _IPV6 / link.name / "disable_ipv6"
    if switch.read_text().strip() != "0":
        switch.write_text("0")
