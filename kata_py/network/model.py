"""How an endpoint is connected to a guest: the internetworking models.

All is called in the pod's network namespace, in a thread of its own, and undone in the reverse order.
Source: kata `virtcontainers/network_linux.go` (setupTCFiltering, tapNetworkPair, addHTBQdisc).
"""

from __future__ import annotations

import enum
import errno
import random
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.network import tap
from kata_py.network.endpoint import Endpoint, Kind
from kata_py.network.errors import NetworkError
from kata_py.network.netlink import SHAPER, Netlink
from kata_py.network.nic import Nic
from kata_py.resource.journal import Journal, undone
from kata_py.resource.link import INGRESS, RemoveLink, RemoveQdisc, RestoreLink
from kata_py.resource.netns import NetworkNamespace

# A macvtap link's index is also the number of its device node, and so unique in the host, not in the namespace.
_INDEX_FIRST, _INDEX_RANGE, _INDEX_TRIES = 8192, 1 << 16, 128


class Model(enum.Enum):
    """The configuration's `internetworking_model`.

    TCFILTER redirects all frames between the link and a tap device. MACVTAP puts a macvtap link on top of it, to
    which the guest speaks under the link's own hardware address. NONE gives the guest no network.
    """

    TCFILTER = "tcfilter"
    MACVTAP = "macvtap"
    NONE = "none"

    @classmethod
    def named(cls, name: str) -> Model:
        """The model of that name; `default` and nothing are `tcfilter`.

        Raises:
            NetworkError: There is none.
        """
        try:
            return cls.TCFILTER if name in ("", "default") else cls(name)
        except ValueError:
            known = ", ".join(["default", *(model.value for model in cls)])
            raise NetworkError(f"unknown internetworking_model {name!r}; there is: {known}") from None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """How fast frames may go, in bits per second for each interface; 0 is as fast as they can.

    Attributes:
        rx: To the guest.
        tx: From it.
    """

    rx: int = 0
    tx: int = 0


@dataclass(frozen=True, slots=True)
class Connector:
    """How the endpoints of one namespace are connected.

    Attributes:
        namespace: Where they are.
        model: How; ipvlan, under which nothing can be stacked, always gets TCFILTER.
        queues: How many queue pairs each interface has.
        limits: How fast frames may go.
        vhost: Whether they go through the host's kernel alone, where it can.
        journal: Where the undo of each change is written first.
    """

    namespace: NetworkNamespace
    model: Model
    queues: int
    limits: RateLimits
    vhost: bool
    journal: Journal

    def connect(self, endpoint: Endpoint, number: int, netlink: Netlink, stack: ExitStack) -> Nic:
        """Connect an endpoint, and give the interface for the machine.

        Args:
            endpoint: What is connected.
            number: Names what is made: `tap<number>_kata`, `network-<number>`.
            netlink: A session in the namespace.
            stack: Undoes it, and closes the interface's descriptors.

        Raises:
            NetworkError: The link is in use by another, or the model has no rate limits.
            OSError: The kernel refuses a change, with the link's name; or the journal cannot be written.
        """
        tap_name = f"tap{number}_kata"
        if self.model is Model.MACVTAP and endpoint.kind is not Kind.IPVLAN:
            descriptors = self._macvtap(endpoint, tap_name, netlink, stack)
        else:
            descriptors = self._tcfilter(endpoint, tap_name, netlink, stack)
        vhosts = tap.open_vhost(self.queues, stack) if self.vhost else ()
        return Nic(f"network-{number}", endpoint.mac, descriptors, vhosts, endpoint.mtu, tap_name)

    def _tcfilter(self, endpoint: Endpoint, name: str, netlink: Netlink, stack: ExitStack) -> tuple[int, ...]:
        link, limits = endpoint.name, self.limits
        if netlink.has_ingress(link):
            raise NetworkError(f"{link} has an ingress queueing discipline already: somebody else filters its frames")
        if limits.tx and netlink.has_shaper(link):
            raise NetworkError(f"{link} has a queueing discipline already, and so cannot be given a rate")
        stack.enter_context(undone(self.journal, self._removal(name)))
        descriptors = tap.open_tap(name, self.queues, stack)
        _silence(name)
        netlink.set(name, mtu=endpoint.mtu, state="up")
        netlink.add_ingress(name)
        stack.enter_context(undone(self.journal, self._qdisc_removal(link, INGRESS)))
        netlink.add_ingress(link)
        netlink.redirect(link, name)
        netlink.redirect(name, link)
        if limits.rx:
            netlink.shape(name, limits.rx)
        if limits.tx:
            stack.enter_context(undone(self.journal, self._qdisc_removal(link, SHAPER)))
            netlink.shape(link, limits.tx)
        return descriptors

    def _macvtap(self, endpoint: Endpoint, name: str, netlink: Netlink, stack: ExitStack) -> tuple[int, ...]:
        if self.limits != RateLimits():
            raise NetworkError(
                "rx_rate_limiter_max_rate and tx_rate_limiter_max_rate are not supported with "
                "internetworking_model macvtap; use tcfilter"
            )
        namespace, addresses = self.namespace, tuple(map(str, endpoint.addresses))
        restore = RestoreLink(namespace.path, namespace.inode, endpoint.name, endpoint.mac, addresses)
        stack.enter_context(undone(self.journal, restore))
        stack.enter_context(undone(self.journal, self._removal(name)))
        index = _add_macvtap(name, endpoint.index, netlink)
        other = netlink.mac(index)
        netlink.set(name, mtu=endpoint.mtu)
        netlink.set(endpoint.name, address=other)
        netlink.set(name, address=endpoint.mac)
        _silence(name)
        netlink.set(name, state="up")
        netlink.flush(endpoint.name)
        return tap.open_macvtap(index, self.queues, stack)

    def _removal(self, name: str) -> RemoveLink:
        return RemoveLink(self.namespace.path, self.namespace.inode, name)

    def _qdisc_removal(self, link: str, handle: int) -> RemoveQdisc:
        return RemoveQdisc(self.namespace.path, self.namespace.inode, link, handle)


def _add_macvtap(name: str, parent: int, netlink: Netlink) -> int:
    for number in range(1, _INDEX_TRIES + 1):
        index = _INDEX_FIRST + random.randrange(_INDEX_RANGE)
        try:
            netlink.add_macvtap(name, parent, index)
        except OSError as error:
            taken = error.errno in (errno.EEXIST, errno.EBUSY)
            if not taken or number == _INDEX_TRIES:
                raise
        else:
            return index
    raise AssertionError("unreachable")


def _silence(name: str) -> None:
    """Keep the host from speaking IPv6 on a link that is the guest's: it would hear router solicitations of ours."""
    with suppress(FileNotFoundError):  # a host without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
