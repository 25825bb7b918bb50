"""What the agent is told of an endpoint: pure functions.

Source: kata `virtcontainers/network.go`, generateVCNetworkStructures.
"""

from __future__ import annotations

from kata_protos import agent_types_pb2 as types_pb2
from kata_py.network.endpoint import Endpoint
from kata_py.network.scan import is_loopback

_IFF_NOARP = 0x80
_RTNH_F_ONLINK = 4


def interface(endpoint: Endpoint, device_path: str = "") -> types_pb2.Interface:
    """The guest's interface.

    Args:
        endpoint: What it stands for.
        device_path: Where the guest finds the device, if that is known; else it looks for the hardware address.
    """
    addresses = (address for address in endpoint.addresses if not is_loopback(address))
    return types_pb2.Interface(
        device=endpoint.name,
        name=endpoint.name,
        IPAddresses=[_address(address.ip, str(address.prefix)) for address in addresses],
        mtu=endpoint.mtu,
        hwAddr=endpoint.mac,
        devicePath=device_path,
        type=endpoint.kind.value,
        raw_flags=_IFF_NOARP if endpoint.noarp else 0,
    )


def routes(endpoint: Endpoint) -> list[types_pb2.Route]:
    """The routes over it."""
    return [
        types_pb2.Route(
            dest=route.destination,
            gateway=route.gateway,
            device=endpoint.name,
            source=route.source,
            scope=route.scope,
            family=_family(is_v6=route.is_v6),
            flags=_RTNH_F_ONLINK if route.onlink else 0,
            mtu=route.mtu,
        )
        for route in endpoint.routes
    ]


def neighbours(endpoint: Endpoint) -> list[types_pb2.ARPNeighbor]:
    """The neighbours on it."""
    return [
        types_pb2.ARPNeighbor(
            toIPAddress=_address(neighbour.ip),
            device=endpoint.name,
            lladdr=neighbour.mac,
            state=neighbour.state,
            flags=neighbour.flags,
        )
        for neighbour in endpoint.neighbours
    ]


def _address(ip: str, mask: str = "") -> types_pb2.IPAddress:
    return types_pb2.IPAddress(family=_family(is_v6=":" in ip), address=ip, mask=mask)


def _family(*, is_v6: bool) -> types_pb2.IPFamily:
    return types_pb2.v6 if is_v6 else types_pb2.v4
