"""A pod's agent behind a socket of this node: what the runtime asks goes to the pod VM, over TLS.

The runtime's connection stays when the VM's is lost: what was under way is answered UNAVAILABLE, what comes then waits
until the VM is dialled anew. Frames pass whole; the one request that must change is decoded (`kata_caa.rewrite`).
Source: cloud-api-adaptor `pkg/adaptor/proxy/proxy.go`; that its proxy dials once is not kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from kata_caa import rewrite
from kata_caa.errors import AdaptorError
from kata_protos import health_pb2
from kata_protos.health_ttrpc import HealthClient
from kata_py.resource.blocking import off_loop
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.splice import Splice
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

ATTEMPT_TIMEOUT = 10.0  # seconds for one connection, or one answer of the agent
PAUSE, PAUSE_MAX, JITTER = 0.2, 5.0, 0.1  # seconds between attempts: the first doubles up to the second


class ProxyError(AdaptorError):
    """A pod VM's forwarder cannot be reached; says for how long, and what was met last."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a pod VM's forwarder is.

    Attributes:
        host: The VM's address.
        port: TCP port.
        server_name: What its certificate must say.
        context: How TLS is spoken; None is without.
    """

    host: str
    port: int
    server_name: str
    context: ssl.SSLContext | None = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Stats:
    """What has passed through a proxy.

    Attributes:
        connections: Of the runtime.
        dials: Connections to the VM that stood.
        losses: Those that were lost while the runtime's stood.
    """

    connections: int = 0
    dials: int = 0
    losses: int = 0


class AgentProxy:
    """One pod's proxy; entering it listens, leaving ends all connections.

    Args:
        path: The socket that the runtime connects to; one of an earlier adaptor is replaced.
        endpoint: Where the VM's forwarder is.
        timeout: Seconds until it must have answered for the first time.
        redial: Seconds that it is dialled once it was lost; then the runtime is told that the VM is gone.

    Attributes:
        stats: What has passed.
    """

    def __init__(self, path: Path, endpoint: Endpoint, *, timeout: float, redial: float) -> None:
        self._path = path
        self._endpoint = endpoint
        self._timeout = timeout
        self._redial = redial
        self._lost: ProxyError | None = None
        self._obituary = Server()
        self._obituary.add_raw("grpc.Health", "Check", self._tell_loss)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.stats = Stats()

    async def __aenter__(self) -> Self:
        listener = await off_loop(_bound, self._path)
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=listener)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        self._obituary.close()
        await self._obituary.wait_closed(ATTEMPT_TIMEOUT)

    async def ready(self) -> None:
        """Wait until the agent behind the forwarder has answered.

        Raises:
            ProxyError: It does not in time, or a certificate is not what it must be.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._persist(self._asked, began + self._timeout)
        logger.info("the agent at %s answers after %.1f s", self._endpoint, loop.time() - began)

    async def _asked(self) -> None:
        """Ask the agent, over a connection of its own, whether it is there."""
        async with Client(str(self._endpoint)) as client:
            await self._connect(lambda: client.link)
            await HealthClient(client).Check(health_pb2.CheckRequest(), timeout=ATTEMPT_TIMEOUT)

    async def _tell_loss(self, payload: bytes, context: Context) -> bytes:
        raise StatusError(Code.FAILED_PRECONDITION, f"the pod VM is lost: {self._lost}")

    def _accept(self) -> asyncio.BaseProtocol:
        if self._lost is not None:
            return self._obituary.accept()
        lost = asyncio.Event()
        splice = Splice(
            _hook, [(rewrite.SERVICE, rewrite.METHOD)], server_lost=lambda error: lost.set()
        )  # fmt: skip
        self.stats.connections += 1
        task = asyncio.create_task(self._serve(splice, lost), name=f"runtime of {self._endpoint.server_name}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return splice.client

    async def _serve(self, splice: Splice, lost: asyncio.Event) -> None:
        keeping = asyncio.create_task(self._keep(splice, lost), name=f"connection to {self._endpoint}")
        try:
            await splice.wait()
        finally:
            keeping.cancel()
            splice.abort()
            await asyncio.wait([keeping])

    async def _keep(self, splice: Splice, lost: asyncio.Event) -> None:
        """Have the VM connected, as long as the runtime is."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                lost.clear()
                await self._persist(partial(self._connect, splice.server), loop.time() + self._redial)
                self.stats.dials += 1
                await lost.wait()
                self.stats.losses += 1
                logger.warning("the connection to %s is lost, dialling", self._endpoint)
        except ProxyError as error:
            logger.error("%s", error)
            self._lost = error
            splice.close("server", error)

    async def _connect(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        endpoint = self._endpoint
        async with asyncio.timeout(ATTEMPT_TIMEOUT):
            transport, _ = await asyncio.get_running_loop().create_connection(
                protocol,
                endpoint.host,
                endpoint.port,
                ssl=endpoint.context,
                server_hostname=endpoint.server_name if endpoint.context else None,
            )
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    async def _persist(self, attempt: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Try until it succeeds.

        Raises:
            ProxyError: It did not in time, or cannot ever.
        """
        loop = asyncio.get_running_loop()
        began, pause, tries = loop.time(), PAUSE, 0
        while True:
            tries += 1
            try:
                return await attempt()
            except ssl.SSLCertVerificationError as error:
                raise ProxyError(
                    f"{self._endpoint} is not {self._endpoint.server_name}: {error.verify_message}; has another machine"
                    " the address, or was the adaptor's directory of certificates lost?"
                ) from error
            except (OSError, TimeoutError, ConnectionClosed, StatusError) as error:
                cause = str(error) or "no answer"
                if loop.time() + pause > deadline:
                    raise ProxyError(
                        f"the forwarder at {self._endpoint} does not answer, tried {tries} times in"
                        f" {loop.time() - began:.0f} s: {cause}; does the pod VM boot, and may the node reach its port?"
                    ) from error
                logger.debug("%s: %s", self._endpoint, cause)
            await asyncio.sleep(pause + random.random() * JITTER)
            pause = min(2 * pause, PAUSE_MAX)


async def _hook(service: str, method: str, payload: bytes) -> bytes | None:
    return await off_loop(rewrite.create_container, payload)


def _bound(path: Path) -> socket.socket:
    """A listening socket in the place of whatever was there, for nobody else.

    Raises:
        ProxyError: It cannot be bound.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ProxyError(f"{path} cannot be listened at: {error.strerror or error}") from error
    return listener
