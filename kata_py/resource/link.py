"""How changes to a pod's network links are undone: a few rtnetlink requests, written by hand.

The delete path imports this module and has seconds: a netlink library would cost it a quarter of one.
Source: `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,pkt_sched}.h`.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from kata_py.resource.netns import NamespaceGone, NetworkNamespace

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_REPLACE = 1, 4, 0x400, 0x100
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELQDISC = 16, 17, 20, 37
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TC_H_INGRESS, _TC_H_ROOT = 0xFFFFFFF1, 0xFFFFFFFF
_ANSWER_TIMEOUT = 2.0  # seconds; the kernel answers before the request returns

INGRESS = 0xFFFF0000  # ffff:, the number that every ingress discipline has

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """A network link of a pod's namespace.

    Attributes:
        netns: The namespace's path.
        inode: Which namespace it was.
        name: The link's name.
    """

    kind: ClassVar[str] = "remove-link"
    netns: str
    inode: int
    name: str

    def perform(self) -> None:
        """Remove the link.

        Raises:
            OSError: It is there and cannot be removed.
        """
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, self.name.encode() + b"\0")
        _inside(self.netns, self.inode, lambda: _request(_RTM_DELLINK, 0, body, self.name, _GONE))


@dataclass(frozen=True, slots=True)
class RemoveQdisc:
    """A queueing discipline of a link of a pod's namespace, with the classes and filters on it.

    Attributes:
        netns: The namespace's path.
        inode: Which namespace it was.
        link: The link's name.
        handle: Its number: `INGRESS`, or that of one at the root. One of another number is left alone.
    """

    kind: ClassVar[str] = "remove-qdisc"
    netns: str
    inode: int
    link: str
    handle: int

    def perform(self) -> None:
        """Remove the discipline.

        Raises:
            OSError: It is there and cannot be removed.
        """
        _inside(self.netns, self.inode, self._remove)

    def _remove(self) -> None:
        index = _index(self.link)
        if index is not None:
            parent = _TC_H_INGRESS if self.handle == INGRESS else _TC_H_ROOT
            body = struct.pack("=BxxxiIII", 0, index, self.handle, parent, 0)
            _request(_RTM_DELQDISC, 0, body, self.link, _GONE | {errno.EINVAL})  # EINVAL: none of this number


@dataclass(frozen=True, slots=True)
class RestoreLink:
    """A link of a pod's namespace that lost its hardware address and its IP addresses to a guest.

    Attributes:
        netns: The namespace's path.
        inode: Which namespace it was.
        link: The link's name.
        mac: Its hardware address.
        addresses: Its IP addresses with their prefix lengths: `10.0.0.2/24`.
    """

    kind: ClassVar[str] = "restore-link"
    netns: str
    inode: int
    link: str
    mac: str
    addresses: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "addresses", tuple(self.addresses))  # JSON has lists alone

    def perform(self) -> None:
        """Give the link its addresses back.

        Raises:
            OSError: The link is there and does not take them.
        """
        _inside(self.netns, self.inode, self._restore)

    def _restore(self) -> None:
        index = _index(self.link)
        if index is None:
            return
        header = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        mac = _attribute(_IFLA_ADDRESS, bytes.fromhex(self.mac.replace(":", "")))
        _request(_RTM_NEWLINK, 0, header + mac, self.link, _GONE)
        for address in self.addresses:
            _request(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, _address(index, address), self.link, _GONE)


def _address(index: int, text: str) -> bytes:
    import socket

    ip, _, prefix = text.partition("/")
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    packed = socket.inet_pton(family, ip)
    header = struct.pack("=BBBBI", family, int(prefix), 0, 0, index)
    return header + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def _inside(path: str, inode: int, undo: Callable[[], None]) -> None:
    try:
        NetworkNamespace(path, inode).run(undo)
    except NamespaceGone:
        pass  # and all its links with it


def _index(name: str) -> int | None:
    import socket

    return next((index for index, each in socket.if_nameindex() if each == name), None)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _request(kind: int, flags: int, body: bytes, name: str, fine: frozenset[int]) -> None:
    """Ask the kernel in this thread's network namespace; the errors in `fine` mean that nothing is left to do."""
    import socket

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_ANSWER_TIMEOUT)
        header = struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0)
        sock.sendto(header + body, (0, 0))
        answer = sock.recv(1 << 16)
    _, answered, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    assert answered == _NLMSG_ERROR, answered  # the form of every acknowledgement
    if code and -code not in fine:
        raise OSError(-code, os.strerror(-code), name)
