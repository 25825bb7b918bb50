"""A pod's network: its links scanned and connected, and taken apart again.

All work on the namespace is done by threads that enter it and end; the event loop's own never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_types_pb2 as types_pb2
from kata_py.network import messages, netlink, scan
from kata_py.network.endpoint import Endpoint
from kata_py.network.errors import HostNetwork, NetworkError
from kata_py.network.model import Connector, Model, RateLimits
from kata_py.network.nic import Nic
from kata_py.resource.blocking import off_loop
from kata_py.resource.journal import Journal
from kata_py.resource.netns import NamespaceGone, NetworkNamespace

_MESSAGE_MAX = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Connection:
    """An endpoint, and the machine's interface that stands for it."""

    endpoint: Endpoint
    nic: Nic


class Network:
    """The network of one pod; made by `open_network`.

    The requests for the agent are made in the order in which the links were found.
    """

    def __init__(self, connector: Connector, stack: ExitStack) -> None:
        self._connector = connector
        self._stack = stack
        self._numbers: Iterator[int] = itertools.count()
        self._connections: list[Connection] = []

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All endpoints with their interfaces."""
        return tuple(self._connections)

    @property
    def nics(self) -> tuple[Nic, ...]:
        """The machine's interfaces."""
        return tuple(connection.nic for connection in self._connections)

    def interfaces(self, device_paths: Mapping[str, str] | None = None) -> list[types_pb2.Interface]:
        """What UpdateInterface is called with, once for each.

        Args:
            device_paths: Where the guest finds a device, by the interface's id, as far as that is known: the
                `address` of the `GuestDevice` that attaching it gave.
        """
        paths = device_paths or {}
        return [messages.interface(each.endpoint, paths.get(each.nic.id, "")) for each in self._connections]

    def routes(self) -> list[types_pb2.Route]:
        """What UpdateRoutes is called with; it removes nothing, so all may be told again after a rescan."""
        return [route for each in self._connections for route in messages.routes(each.endpoint)]

    def neighbours(self) -> list[types_pb2.ARPNeighbor]:
        """What AddARPNeighbors is called with."""
        return [neighbour for each in self._connections for neighbour in messages.neighbours(each.endpoint)]

    async def rescan(self) -> tuple[Connection, ...]:
        """Connect what has appeared since; returns only that. Links that were found before are left as they are.

        Raises:
            NetworkError: The namespace is gone, or a link cannot be connected; nothing is left of this call.
        """
        if self._connector.model is Model.NONE:
            return ()
        namespace, undoing = self._connector.namespace, ExitStack()
        try:
            found = await off_loop(namespace.run, self._connect_new, undoing)
        except BaseException as error:
            await off_loop(undoing.close)
            if isinstance(error, NamespaceGone):
                raise NetworkError(f"{error.filename}: {error.strerror}") from error
            if isinstance(error, OSError):
                raise NetworkError(f"network namespace {namespace.path}: {error}") from error
            raise
        self._stack.push(undoing)
        self._connections += found
        return found

    @asynccontextmanager
    async def news(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever an address was added or taken away in the namespace.

        Raises:
            NetworkError: The namespace is gone.
        """
        with ExitStack() as stack:  # in the thread: whoever is cancelled meanwhile never sees the socket

            def listen() -> socket.socket:
                return stack.enter_context(netlink.address_news())

            try:
                sock = await off_loop(self._connector.namespace.run, listen)
            except OSError as error:
                raise NetworkError(f"{error.filename}: {error.strerror}") from error
            changed, loop = asyncio.Event(), asyncio.get_running_loop()

            def read() -> None:
                with contextlib.suppress(BlockingIOError, OSError):  # overrun: there was something, that is all
                    while sock.recv(_MESSAGE_MAX):
                        pass
                changed.set()

            loop.add_reader(sock, read)
            try:
                yield changed
            finally:
                loop.remove_reader(sock)

    def _connect_new(self, stack: ExitStack) -> tuple[Connection, ...]:
        with netlink.session() as session:
            ours = {nic.name for nic in self.nics}
            dump = session.dump()
            known = {each.endpoint.index for each in self._connections}
            known |= {link["index"] for link in dump.links if dict(link["attrs"])["IFLA_IFNAME"] in ours}
            found = []
            for endpoint in scan.endpoints(dump, known=known):
                nic = self._connector.connect(endpoint, next(self._numbers), session, stack)
                found.append(Connection(endpoint, nic))
            return tuple(found)


def pod_namespace(netns: Path | None) -> NetworkNamespace:
    """The network namespace of a pod, told apart from the host's.

    Args:
        netns: The path that the OCI spec has; None when it lists no network namespace, which means the host's.

    Raises:
        HostNetwork: It is the host's own.
        NetworkError: There is none at the path.
    """
    try:
        namespace = NetworkNamespace.at(netns) if netns else None
    except OSError as error:
        raise NetworkError(f"there is no network namespace at {netns}: {error.strerror}") from error
    if namespace is None or namespace.is_host:
        raise HostNetwork(
            f"the pod is given the host's own network ({netns or 'no network namespace of its own'}), which a virtual "
            "machine cannot share: a pod with hostNetwork: true needs another runtime class"
        )
    return namespace


@asynccontextmanager
async def open_network(
    netns: Path,
    model: Model,
    journal: Journal,
    *,
    queues: int = 1,
    vhost: bool = True,
    limits: RateLimits = RateLimits(),  # noqa: B008 a frozen value
) -> AsyncIterator[Network]:
    """Connect a pod's network to its guest; leaving takes apart what was made, and closes all descriptors.

    Args:
        netns: The pod's network namespace.
        model: How links are connected.
        journal: Where the undo of each change is written first.
        queues: Queue pairs of each interface: as many as the guest has processors.
        vhost: Whether frames go through the host's kernel alone (vhost-net), where it can.
        limits: How fast frames may go; not with MACVTAP.

    Raises:
        HostNetwork: The namespace is the host's own.
        NetworkError: There is no such namespace, or a link cannot be connected; nothing is left behind.
    """
    namespace = pod_namespace(netns)
    stack = ExitStack()
    try:
        network = Network(Connector(namespace, model, queues, limits, vhost, journal), stack)
        await network.rescan()
        yield network
    finally:
        await off_loop(stack.close)
