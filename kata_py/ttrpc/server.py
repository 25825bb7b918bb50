"""A ttrpc server: services by name, and the addresses they are served at."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address
from kata_py.ttrpc.context import Context as Context
from kata_py.ttrpc.context import Peer
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.service import Method, Service, StreamHandler, UnaryHandler, bind
from kata_py.ttrpc.session import Session
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

_ABORT_TIMEOUT: Final = 1.0  # seconds for cancelled handlers to end


def same_user(peer: Peer | None) -> bool:
    """Admit who has our own effective ids. Source: containerd `pkg/shim/shim_linux.go`."""
    return peer is not None and (peer.uid, peer.gid) == (os.geteuid(), os.getegid())


class Server:
    """Serves calls; make it inside the running event loop.

    Args:
        admit: Whether a peer may call at all; its credentials are None where the transport has none.
        cancel_abandoned: Cancel handlers whose call is abandoned; otherwise only those are that agreed to it
            by `Context.cancel_if_abandoned`.
    """

    def __init__(self, admit: Callable[[Peer | None], bool] | None = None, *, cancel_abandoned: bool = False) -> None:
        self._admit = admit
        self._cancel_abandoned = cancel_abandoned
        self._services: dict[str, Mapping[str, Method]] = {}
        self._factories: dict[str, Callable[[], Service]] = {}
        self._raw: dict[str, dict[str, Method]] = {}
        self._listeners: list[transport.Listener] = []
        self._sessions: set[Session] = set()
        self._done = asyncio.Event()
        self._closing = False

    def add(self, service: Service) -> None:
        """Serve all methods of a service, an instance of a generated base class."""
        self._services[service.ttrpc_name] = _bound(service)

    def add_lazy(self, name: str, factory: Callable[[], Service]) -> None:
        """Serve a service that is made at its first call, so that its messages are imported only then.

        Args:
            name: The service's full name.
            factory: Makes the service.
        """
        self._factories[name] = factory

    def add_raw(self, service: str, method: str, handler: UnaryHandler) -> None:
        """Serve one method in bytes; it goes before one of a service added otherwise.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            handler: Takes the serialised request and the context, gives the serialised response.
        """
        self._raw.setdefault(service, {})[method] = Method(unary=handler)

    def add_raw_stream(self, service: str, method: str, handler: StreamHandler) -> None:
        """Serve one streaming method in bytes.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            handler: Takes the stream and the context; gives the serialised response, or None if the stream was it.
        """
        self._raw.setdefault(service, {})[method] = Method(streaming=handler)

    async def listen(self, address: Address) -> None:
        """Serve whoever connects to the address.

        Raises:
            ListenError: It cannot be listened on.
        """
        self._listeners.append(await transport.listen(address, self.accept))

    async def serve(self, sock: socket.socket) -> None:
        """Serve whoever connects to a socket that is bound and listening; it is closed with the server."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(self.accept, sock=sock))

    def close(self) -> None:
        """Stop accepting; each connection is closed when its running calls are answered."""
        self._closing = True
        for listener in self._listeners:
            listener.close()
        for session in list(self._sessions):
            session.close()
        if not self._sessions:
            self._done.set()

    async def wait_closed(self, timeout: float) -> None:
        """After `close`, wait until all calls are answered and all connections closed.

        What is left after the timeout is aborted: connections are closed and handlers cancelled.

        Args:
            timeout: Seconds to wait for running calls.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._done.wait()
        except TimeoutError:
            for session in list(self._sessions):
                session.abort()
            try:
                async with asyncio.timeout(_ABORT_TIMEOUT):
                    await self._done.wait()
            except TimeoutError:
                stuck = [name for session in self._sessions for name in session.running()]
                logger.error("still running after they were cancelled: %s", ", ".join(stuck))

    def accept(self) -> asyncio.BufferedProtocol:
        """Begin one more connection: the protocol for a transport of the caller's own making."""
        session = Session(self._find, self._ended, self._admit, cancel_abandoned=self._cancel_abandoned)
        self._sessions.add(session)
        if self._closing:
            session.close()
        return session.link

    def _ended(self, session: Session) -> None:
        self._sessions.discard(session)
        if self._closing and not self._sessions:
            self._done.set()

    def _find(self, service: str, method: str) -> Method:
        raw = self._raw.get(service, {})
        if method in raw:
            return raw[method]
        if service in self._factories:
            self.add(self._factories[service]())
            del self._factories[service]
        methods = self._services.get(service)
        if methods is None and not raw:
            raise StatusError(Code.UNIMPLEMENTED, f"unknown service {service!r}")
        if methods is None or method not in methods:
            raise StatusError(Code.UNIMPLEMENTED, f"unknown method {method!r} of service {service}")
        return methods[method]


def _bound(service: Service) -> dict[str, Method]:
    return {name: bind(entry) for name, entry in service.ttrpc_methods().items()}
