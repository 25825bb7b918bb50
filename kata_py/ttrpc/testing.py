"""A real client and a real server without sockets, for tests of services and of their callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from kata_py.ttrpc.client import Client
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.service import Service
from kata_py.ttrpc.transport import memory

_CLOSE_TIMEOUT: Final = 5.0  # seconds for handlers to end


@asynccontextmanager
async def channel(*services: Service, server: Server | None = None) -> AsyncIterator[Client]:
    """Connect a client to a server with these services, through memory.

    Args:
        services: What is served.
        server: To serve it by a server with options or raw handlers of one's own; closed at the end.
    """
    server = Server() if server is None else server
    for service in services:
        server.add(service)
    async with Client("memory") as client:
        memory.join(client.link, server.accept())
        try:
            yield client
        finally:
            server.close()
            await server.wait_closed(_CLOSE_TIMEOUT)
