"""How an endpoint is connected to a guest: the internetworking models.

Each is called in the pod's network namespace, in a thread of its own, and undone in the reverse order.
Source: kata `virtcontainers/network_linux.go` (setupTCFiltering, tapNetworkPair).
"""

from __future__ import annotations

import enum
import errno
import random
from contextlib import ExitStack, suppress
from pathlib import Path

from kata_py.network import tap
from kata_py.network.endpoint import Endpoint, Kind
from kata_py.network.errors import NetworkError
from kata_py.network.netlink import Netlink
from kata_py.network.nic import Nic
from kata_py.resource.journal import Journal, undone
from kata_py.resource.link import RemoveIngress, RemoveLink, RestoreLink
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


def connect(
    endpoint: Endpoint,
    number: int,
    model: Model,
    queues: int,
    netlink: Netlink,
    namespace: NetworkNamespace,
    journal: Journal,
    stack: ExitStack,
) -> Nic:
    """Connect an endpoint, and give the interface for the machine, without vhost.

    Args:
        endpoint: What is connected.
        number: Names what is made: `tap<number>_kata`, `network-<number>`.
        model: How; ipvlan, under which nothing can be stacked, always gets TCFILTER.
        queues: How many queue pairs the interface has.
        netlink: A session in the namespace.
        namespace: Where the endpoint is.
        journal: Where the undo of each change is written first.
        stack: Undoes it.

    Raises:
        NetworkError: The link is in use by another.
        OSError: The kernel refuses a change, with the link's name; or the journal cannot be written.
    """
    name = f"tap{number}_kata"
    if model is Model.MACVTAP and endpoint.kind is not Kind.IPVLAN:
        descriptors = _macvtap(endpoint, name, queues, netlink, namespace, journal, stack)
    else:
        descriptors = _tcfilter(endpoint, name, queues, netlink, namespace, journal, stack)
    return Nic(f"network-{number}", endpoint.mac, descriptors, (), endpoint.mtu, name)


def _tcfilter(
    endpoint: Endpoint,
    name: str,
    queues: int,
    netlink: Netlink,
    namespace: NetworkNamespace,
    journal: Journal,
    stack: ExitStack,
) -> tuple[int, ...]:
    if netlink.has_ingress(endpoint.name):
        raise NetworkError(
            f"{endpoint.name} has an ingress queueing discipline already; somebody else filters what comes in on it"
        )
    stack.enter_context(undone(journal, RemoveLink(namespace.path, namespace.inode, name)))
    descriptors = tap.open_tap(name, queues, stack)
    _silence(name)
    netlink.set(name, mtu=endpoint.mtu)
    netlink.set(name, state="up")
    netlink.add_ingress(name)
    stack.enter_context(undone(journal, RemoveIngress(namespace.path, namespace.inode, endpoint.name)))
    netlink.add_ingress(endpoint.name)
    netlink.redirect(endpoint.name, name)
    netlink.redirect(name, endpoint.name)
    return descriptors


def _macvtap(
    endpoint: Endpoint,
    name: str,
    queues: int,
    netlink: Netlink,
    namespace: NetworkNamespace,
    journal: Journal,
    stack: ExitStack,
) -> tuple[int, ...]:
    addresses = tuple(map(str, endpoint.addresses))
    restore = RestoreLink(namespace.path, namespace.inode, endpoint.name, endpoint.mac, addresses)
    stack.enter_context(undone(journal, restore))
    stack.enter_context(undone(journal, RemoveLink(namespace.path, namespace.inode, name)))
    index = _add_macvtap(name, endpoint.index, netlink)
    other = netlink.mac(index)
    netlink.set(name, mtu=endpoint.mtu)
    netlink.set(endpoint.name, address=other)
    netlink.set(name, address=endpoint.mac)
    _silence(name)
    netlink.set(name, state="up")
    netlink.flush(endpoint.name)
    return tap.open_macvtap(index, queues, stack)


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
