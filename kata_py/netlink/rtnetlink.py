"""Links, addresses, routes and neighbours of the kernel, read and changed over a netlink socket.

Source: rtnetlink(7), Linux `include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h`.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from kata_py.netlink import wire
from kata_py.netlink.connection import Connection

# Groups of news.
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x10, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400

ARPHRD_ETHER = 1  # type of links

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80
IFNAMSIZ = 16

IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200
RTNH_F_SETTINGS = 0x2 | 0x4  # pervasive, onlink; the other flags of a route tell what became of it
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_DHCP = 2, 3, 4, 16
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTNH_F_ONLINK = 0x4
NUD_PERMANENT = 0x80

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS = 1, 2, 4, 5, 6, 7, 8
_RTA_TABLE = 15
_RTAX_MTU = 2
_NDA_DST, _NDA_LLADDR = 1, 2

_RTM_F_CLONED = 0x200  # an exception of a route, not a route

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, changed flags
_IFADDR = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=B3xiHBB")  # family, index, state, flags, type


class Link(NamedTuple):
    """A network interface.

    Attributes:
        number: The kernel's index of it.
        name: Its name.
        address: Its hardware address; of no bytes where it has none.
        mtu: Bytes.
        flags: IFF_*.
        type: ARPHRD_*.
        info: What the kernel tells of its kind, as attributes.
    """

    number: int
    name: str
    address: bytes
    mtu: int
    flags: int
    type: int = ARPHRD_ETHER
    info: bytes = b""

    @property
    def kind(self) -> str:
        """Which driver makes such links: `vxlan`, `veth`; empty for a device's own."""
        return wire.decode_attributes(self.info).get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()

    @property
    def data(self) -> bytes:
        """What that driver tells of the link, as attributes."""
        return wire.decode_attributes(self.info).get(_IFLA_INFO_DATA, b"")

    @property
    def is_up(self) -> bool:
        """Whether it was brought up."""
        return bool(self.flags & IFF_UP)


class Address(NamedTuple):
    """An address of an interface.

    Attributes:
        family: AF_INET or AF_INET6.
        address: Its bytes.
        prefix: Bits of the network.
    """

    family: int
    address: bytes
    prefix: int


class Route(NamedTuple):
    """A route of the main table.

    Attributes:
        family: AF_INET or AF_INET6.
        destination: The network's address; None is the default route.
        prefix: Bits of the destination.
        source: Network that packets must come from; for IPv6 only.
        source_prefix: Bits of it.
        preferred_source: Address that packets are given.
        gateway: Next hop.
        link: Number of the interface; 0 where there is not just one.
        scope: RT_SCOPE_*.
        flags: RTNH_F_*.
        mtu: Bytes; 0 is the interface's.
        protocol: Who made it, RTPROT_*.
        metric: The lower, the better; 0 leaves it to the kernel.
        type: RTN_*.
    """

    family: int
    destination: bytes | None = None
    prefix: int = 0
    source: bytes | None = None
    source_prefix: int = 0
    preferred_source: bytes | None = None
    gateway: bytes | None = None
    link: int = 0
    scope: int = 0
    flags: int = 0
    mtu: int = 0
    protocol: int = RTPROT_BOOT
    metric: int = 0
    type: int = RTN_UNICAST


class Neighbour(NamedTuple):
    """Who is known to have an address on a link.

    Attributes:
        link: Number of the interface.
        family: AF_INET or AF_INET6.
        address: The protocol address's bytes.
        link_address: The hardware address; None if not known.
        state: NUD_*.
        flags: NTF_*.
    """

    link: int
    family: int
    address: bytes
    link_address: bytes | None
    state: int
    flags: int


class Rtnetlink(Connection):
    """A connection to the kernel's network of the calling thread; for one thread at a time.

    Raises:
        OSError: There is no netlink.
    """

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def links(self) -> list[Link]:
        """All interfaces."""
        found = []
        for payload in self.dump(_RTM_GETLINK, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "links"):
            _family, form, index, flags, _changed = _IFINFO.unpack_from(payload)
            values = wire.decode_attributes(payload[_IFINFO.size :])
            name = values[_IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")
            mtu = wire.to_u32(values[_IFLA_MTU])
            info = values.get(_IFLA_LINKINFO, b"")
            found.append(Link(index, name, values.get(_IFLA_ADDRESS, b""), mtu, flags, form, info))
        return found

    def add_link(
        self,
        name: str,
        kind: str,
        data: bytes = b"",
        *,
        namespace: int | None = None,
        address: bytes | None = None,
        mtu: int | None = None,
    ) -> None:
        """Make an interface, down yet.

        Args:
            name: Its name; nobody there may have it.
            kind: The driver; its module is loaded if need be.
            data: What the driver is told, as attributes.
            namespace: Descriptor of the network namespace that it is made in; what carries its packets, such as those
                of a tunnel, stays this one.
            address: Its hardware address; without one, the kernel chooses.
            mtu: Bytes; without it, the kernel chooses.
        """
        info = [(_IFLA_INFO_KIND, kind.encode())]
        if data:
            info.append((_IFLA_INFO_DATA, data))
        values = [(_IFLA_IFNAME, os.fsencode(name) + b"\0"), (_IFLA_LINKINFO, wire.encode_attributes(info))]
        if namespace is not None:
            values.append((_IFLA_NET_NS_FD, wire.u32(namespace)))
        if address is not None:
            values.append((_IFLA_ADDRESS, address))
        if mtu is not None:
            values.append((_IFLA_MTU, wire.u32(mtu)))
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + wire.encode_attributes(values)
        self.change(_RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload, f"{name} ({kind})")

    def delete_link(self, link: Link) -> None:
        """Remove an interface, and its addresses, routes and rules of traffic with it."""
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, link.number, 0, 0)
        self.change(_RTM_DELLINK, 0, payload, link.name)

    def move_link(self, link: Link, namespace: int) -> None:
        """Move an interface to another network namespace; it is down there, and has lost its addresses.

        Args:
            link: The interface.
            namespace: The namespace's descriptor.
        """
        values = wire.attribute(_IFLA_NET_NS_FD, wire.u32(namespace))
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, link.number, 0, 0) + values
        self.change(_RTM_NEWLINK, 0, payload, f"{link.name}, to another namespace")

    def set_master(self, link: Link, master: int) -> None:
        """Make an interface a port of another, given by number."""
        values = wire.attribute(_IFLA_MASTER, wire.u32(master))
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, link.number, 0, 0) + values
        self.change(_RTM_NEWLINK, 0, payload, f"{link.name}, port of {master}")

    def keep_silent(self, link: Link) -> None:
        """Let an interface have no IPv6 address of its own making, so that it says nothing when it comes up."""
        mode = wire.attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
        values = wire.attribute(_IFLA_AF_SPEC, wire.attribute(socket.AF_INET6, mode))
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, link.number, 0, 0) + values
        self.change(_RTM_NEWLINK, 0, payload, f"{link.name}, without an IPv6 address of its own")

    def set_link(
        self,
        link: Link,
        *,
        name: str | None = None,
        address: bytes | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        arp: bool | None = None,
    ) -> None:
        """Change what is given of an interface; one change per call tells which the kernel refused."""
        flags = changed = 0
        for wanted, flag in ((up, IFF_UP), (None if arp is None else not arp, IFF_NOARP)):
            if wanted is not None:
                changed |= flag
                flags |= flag if wanted else 0
        values = []
        if name is not None:
            values.append((_IFLA_IFNAME, os.fsencode(name) + b"\0"))
        if address is not None:
            values.append((_IFLA_ADDRESS, address))
        if mtu is not None:
            values.append((_IFLA_MTU, wire.u32(mtu)))
        told = {"name": name, "address": address and address.hex(":"), "mtu": mtu, "up": up, "arp": arp}
        subject = f"{link.name}, " + ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, link.number, flags, changed) + wire.encode_attributes(values)
        self.change(_RTM_NEWLINK, 0, payload, subject)

    def addresses(self) -> list[tuple[int, Address]]:
        """All addresses, each with the number of its interface."""
        found = []
        for payload in self.dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "addresses"):
            family, prefix, _flags, _scope, index = _IFADDR.unpack_from(payload)
            values = wire.decode_attributes(payload[_IFADDR.size :])
            # Of a link between two, IFA_ADDRESS is the other's.
            address = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if family in (socket.AF_INET, socket.AF_INET6) and address:
                found.append((index, Address(family, address, prefix)))
        return found

    def add_address(
        self, link: Link, address: Address, broadcast: bytes | None = None, *, prefix_route: bool = True
    ) -> None:
        """Give an interface an address, or renew it. Nobody is asked whether an IPv6 address is free already.

        Args:
            link: The interface.
            address: The address.
            broadcast: Address of all in its network.
            prefix_route: Whether its network gets a route over the interface.
        """
        values = [(_IFA_LOCAL, address.address), (_IFA_ADDRESS, address.address)]
        if not prefix_route:
            own = IFA_F_NODAD if address.family == socket.AF_INET6 else 0
            values.append((_IFA_FLAGS, wire.u32(own | IFA_F_NOPREFIXROUTE)))
        if broadcast is not None:
            values.append((_IFA_BROADCAST, broadcast))
        self._change_address(_RTM_NEWADDR, wire.NLM_F_CREATE | wire.NLM_F_REPLACE, link, address, values)

    def delete_address(self, link: Link, address: Address) -> None:
        """Take an address from an interface."""
        self._change_address(_RTM_DELADDR, 0, link, address, [(_IFA_LOCAL, address.address)])

    def routes(self, family: int) -> list[Route]:
        """The routes of the main table."""
        found = []
        for payload in self.dump(_RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "routes"):
            table, route = _route(payload)
            if table == RT_TABLE_MAIN and not route.flags & _RTM_F_CLONED:
                found.append(route)
        return found

    def route_to(self, family: int, address: bytes) -> Route:
        """The route that a packet to an address takes, of whichever table.

        Raises:
            OSError: There is none (ENETUNREACH), among others.
        """
        subject = socket.inet_ntop(family, address)
        payload = _RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + wire.attribute(_RTA_DST, address)
        return _route(self.ask(_RTM_GETROUTE, payload, subject))[1]

    def add_route(self, route: Route, *, replace: bool = True) -> None:
        """Add a route.

        Args:
            route: The route.
            replace: Whether it takes the place of one to the same destination; else that is an error (EEXIST).
        """
        self._change_route(_RTM_NEWROUTE, wire.NLM_F_REPLACE if replace else wire.NLM_F_EXCL, route)

    def delete_route(self, route: Route) -> None:
        """Remove a route."""
        self._change_route(_RTM_DELROUTE, 0, route)

    def _change_route(self, request: int, flags: int, route: Route) -> None:
        values = [(_RTA_OIF, wire.u32(route.link))]
        for kind, value in (
            (_RTA_DST, route.destination),
            (_RTA_SRC, route.source),
            (_RTA_PREFSRC, route.preferred_source),
            (_RTA_GATEWAY, route.gateway),
        ):
            if value is not None:
                values.append((kind, value))
        if route.metric:
            values.append((_RTA_PRIORITY, wire.u32(route.metric)))
        if route.mtu:
            values.append((_RTA_METRICS, wire.attribute(_RTAX_MTU, wire.u32(route.mtu))))
        header = _RTMSG.pack(
            route.family, route.prefix, route.source_prefix, 0, RT_TABLE_MAIN, route.protocol, route.scope,
            route.type, route.flags,
        )  # fmt: skip
        if request == _RTM_NEWROUTE:
            flags |= wire.NLM_F_CREATE
        self.change(request, flags, header + wire.encode_attributes(values), "route")

    def neighbours(self) -> list[Neighbour]:
        """Who is known on which interface."""
        found = []
        for payload in self.dump(_RTM_GETNEIGH, _NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "neighbours"):
            family, index, state, flags, _type = _NDMSG.unpack_from(payload)
            values = wire.decode_attributes(payload[_NDMSG.size :])
            address = values.get(_NDA_DST)
            if family in (socket.AF_INET, socket.AF_INET6) and address:
                found.append(Neighbour(index, family, address, values.get(_NDA_LLADDR), state, flags))
        return found

    def add_neighbour(self, neighbour: Neighbour) -> None:
        """Add who has an address, or replace what is known of it."""
        values = [(_NDA_DST, neighbour.address)]
        if neighbour.link_address is not None:
            values.append((_NDA_LLADDR, neighbour.link_address))
        header = _NDMSG.pack(neighbour.family, neighbour.link, neighbour.state, neighbour.flags, 0)
        flags = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
        self.change(_RTM_NEWNEIGH, flags, header + wire.encode_attributes(values), "neighbour")

    def _change_address(
        self, kind: int, flags: int, link: Link, address: Address, values: list[tuple[int, bytes]]
    ) -> None:
        own = IFA_F_NODAD if address.family == socket.AF_INET6 else 0
        payload = _IFADDR.pack(address.family, address.prefix, own, 0, link.number) + wire.encode_attributes(values)
        subject = f"{link.name}, {socket.inet_ntop(address.family, address.address)}/{address.prefix}"
        self.change(kind, flags, payload, subject)


def _route(payload: bytes) -> tuple[int, Route]:
    """A route, with the number of its table."""
    family, prefix, source_prefix, _tos, table, protocol, scope, form, flags = _RTMSG.unpack_from(payload)
    values = wire.decode_attributes(payload[_RTMSG.size :])
    metrics = wire.decode_attributes(values.get(_RTA_METRICS, b""))
    return _number(values, _RTA_TABLE, table), Route(
        family,
        values.get(_RTA_DST),
        prefix,
        values.get(_RTA_SRC),
        source_prefix,
        values.get(_RTA_PREFSRC),
        values.get(_RTA_GATEWAY),
        _number(values, _RTA_OIF, 0),
        scope,
        flags,
        _number(metrics, _RTAX_MTU, 0),
        protocol,
        _number(values, _RTA_PRIORITY, 0),
        form,
    )


def _number(values: dict[int, bytes], kind: int, default: int) -> int:
    value = values.get(kind)
    return default if value is None else wire.to_u32(value)
