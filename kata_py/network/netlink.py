"""A thin typed rtnetlink session over pyroute2, for the network namespace of the thread that opens it.

The library costs 13 MiB and a quarter of a second, so it is imported when a session is opened, and nowhere else.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kata_py.network.scan import Dump
from kata_py.resource.link import INGRESS

if TYPE_CHECKING:
    from pyroute2 import IPRoute

SHAPER = 0x10000  # 1:
_SHAPER_CLASS, _SHAPER_DEFAULT = SHAPER + 1, SHAPER + 2  # 1:1, 1:2
_TC_H_ROOT = 0xFFFFFFFF
_BURST = 0.01  # seconds' worth of a shaped rate that may go at once
_BURST_MIN = 3200  # bytes: two full frames
_ETH_P_ALL = 3
_BUSY_TRIES = 5
_BUSY_WAIT = 0.01  # seconds, after the first try; the nth waits n times as long
_EBUSY = 16
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100


class Netlink:
    """A session; made by `session`. Each call raises OSError, with the link's name, when the kernel refuses it."""

    def __init__(self, ip: IPRoute) -> None:
        self._ip = ip

    def dump(self) -> Dump:
        """All links, addresses, routes and neighbours."""
        with _refused(""):
            return Dump(
                tuple(self._ip.get_links()),
                tuple(self._ip.get_addr()),
                tuple(self._ip.get_routes()),
                tuple(self._ip.get_neighbours()),
            )

    def index(self, name: str) -> int:
        """The index of the link of that name."""
        with _refused(name):
            return int(self._ip.get_links(ifname=name)[0]["index"])

    def mac(self, index: int) -> str:
        """The hardware address of a link."""
        with _refused(str(index)):
            return str(self._ip.get_links(index)[0].get_attr("IFLA_ADDRESS"))

    def set(self, name: str, **settings: str | int) -> None:
        """Change a link: `mtu`, `address`, `state` (`up`, `down`)."""
        index = self.index(name)
        with _refused(name):
            self._ip.link("set", index=index, **settings)

    def add_macvtap(self, name: str, parent: int, index: int) -> None:
        """Add a macvtap link, in bridge mode, with the index asked for."""
        with _refused(name):
            self._ip.link("add", ifname=name, kind="macvtap", link=parent, macvtap_mode="bridge", index=index)

    def flush(self, name: str) -> None:
        """Remove all IP addresses of a link."""
        index = self.index(name)
        with _refused(name):
            self._ip.flush_addr(index=index)

    def has_ingress(self, name: str) -> bool:
        """Whether the link has an ingress queueing discipline, or its like, already."""
        index = self.index(name)
        with _refused(name):
            return any(qdisc["handle"] == INGRESS for qdisc in self._ip.get_qdiscs(index=index))

    def has_shaper(self, name: str) -> bool:
        """Whether somebody has given the link a queueing discipline at its root."""
        index = self.index(name)
        with _refused(name):
            qdiscs = self._ip.get_qdiscs(index=index)
            return any(qdisc["parent"] == _TC_H_ROOT and qdisc["handle"] for qdisc in qdiscs)

    def shape(self, name: str, rate: int) -> None:
        """Let what goes out by a link go at a rate, in bits per second, at most (HTB)."""
        index, rate = self.index(name), max(rate // 8, 1)
        burst = max(int(rate * _BURST), _BURST_MIN)
        speed = {"rate": rate, "ceil": rate, "burst": burst, "cburst": burst}
        with _refused(name):
            self._ip.tc("add", "htb", index=index, handle=SHAPER, default=_SHAPER_DEFAULT & 0xFFFF)
            self._ip.tc("add-class", "htb", index=index, handle=_SHAPER_CLASS, parent=SHAPER, **speed)
            self._ip.tc("add-class", "htb", index=index, handle=_SHAPER_DEFAULT, parent=_SHAPER_CLASS, **speed)

    def add_ingress(self, name: str) -> None:
        """Add the ingress queueing discipline; a link that is busy is tried again for 100 ms."""
        index = self.index(name)
        for number in range(1, _BUSY_TRIES + 1):
            try:
                with _refused(name):
                    self._ip.tc("add", "ingress", index=index, handle=INGRESS)
            except OSError as error:
                if error.errno != _EBUSY or number == _BUSY_TRIES:
                    raise
                time.sleep(_BUSY_WAIT * number)  # the kernel tells nobody when it is free
            else:
                return

    def redirect(self, source: str, target: str) -> None:
        """Send every frame that comes in on one link out on the other."""
        index, out = self.index(source), self.index(target)
        action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": out}
        with _refused(source):
            self._ip.tc(
                "add-filter", "u32", index=index, parent=INGRESS, protocol=_ETH_P_ALL, target=0,
                keys=["0x0/0x0+0"], action=action,
            )  # fmt: skip


def address_news() -> socket.socket:
    """A socket on which the kernel tells of every address that comes or goes. Source: rtnetlink(7)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    except OSError:
        sock.close()
        raise
    return sock


@contextmanager
def session() -> Iterator[Netlink]:
    """A session in the network namespace of this thread, which runs no event loop.

    Raises:
        OSError: No descriptors or memory left.
    """
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        yield Netlink(ip)


@contextmanager
def _refused(name: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, error.args[-1], name) from error
