"""The agent-protocol-forwarder: whoever the adaptor is, by its certificate, talks to the agent.

Each connection of an adaptor gets one of its own to the agent's socket; calls pass whole, but for those that the
interceptor changes. An adaptor may come before the agent is up: its calls wait.
Source: cloud-api-adaptor `pkg/forwarder/forwarder.go`, `pkg/forwarder/interceptor/interceptor.go`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kata_caa.errors import ForwarderError
from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.errors import ConnectError
from kata_py.ttrpc.splice import Hook, Splice

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

HOST: Final = "0.0.0.0"
PORT: Final = 15150
AGENT_TIMEOUT: Final = 150.0
"""Seconds for the agent to take a connection."""

_AGENT_RETRY: Final = 0.1  # seconds between two attempts to reach it
_HANDSHAKE_TIMEOUT: Final = 10.0  # seconds
_BACKLOG: Final = 128


def listening(host: str, port: int) -> socket.socket:
    """A socket for connections.

    Args:
        host: An address of this machine.
        port: TCP port; 0 is any.

    Raises:
        ForwarderError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ForwarderError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


class Forwarder:
    """Passes calls on to an agent.

    Args:
        agent: Where it listens.
        hook: Sees and changes the requests of the methods in `hooked`.
        hooked: Pairs of service and method.
        agent_timeout: Seconds for the agent to take a connection.
    """

    def __init__(
        self,
        agent: Address,
        hook: Hook | None = None,
        hooked: Iterable[tuple[str, str]] = (),
        *,
        agent_timeout: float = AGENT_TIMEOUT,
    ) -> None:
        self._agent = agent
        self._hook = hook
        self._hooked = frozenset(hooked)
        self._agent_timeout = agent_timeout
        self._servers: list[asyncio.Server] = []
        self._splices: dict[Splice, asyncio.Task[None]] = {}

    async def serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take connections, and own the listener from now on.

        Args:
            listener: Where, of `listening`.
            tls: How; None is without TLS.
        """
        handshake = _HANDSHAKE_TIMEOUT if tls is not None else None
        server = await asyncio.get_running_loop().create_server(
            self._accept, sock=listener, ssl=tls, ssl_handshake_timeout=handshake, backlog=_BACKLOG
        )
        self._servers.append(server)

    async def close(self) -> None:
        """Take no more connections, and end those that there are."""
        for server in self._servers:
            server.close()
        tasks = list(self._splices.values())
        for splice in list(self._splices):
            splice.close()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self) -> asyncio.BaseProtocol:
        # Whether the client is let in is known only when the splice is told of its connection.
        splice = Splice(self._hook, self._hooked, client_opened=lambda: self._opened(splice))
        return splice.client

    def _opened(self, splice: Splice) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(splice), name="adaptor")
        self._splices[splice] = task
        task.add_done_callback(lambda task: self._splices.pop(splice))

    async def _serve(self, splice: Splice) -> None:
        logger.info("an adaptor has connected")
        connecting = asyncio.create_task(self._connect(splice), name="agent")
        try:
            ending = await splice.wait()
        finally:
            connecting.cancel()
            splice.close()
        why = f": {ending.error}" if ending.error is not None else ""
        counters = splice.counters
        logger.info("the %s's connection has ended after %d calls%s", _NAMES[ending.side], counters.requests, why)

    async def _connect(self, splice: Splice) -> None:
        try:
            await transport.connect(self._agent, splice.server, self._agent_timeout, retry=_AGENT_RETRY)
        except ConnectError as error:
            logger.error("the agent: %s", error)
            splice.close("server", error)


_NAMES: Final = {"client": "adaptor", "server": "agent"}
