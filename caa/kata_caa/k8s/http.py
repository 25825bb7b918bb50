"""HTTP servers of the adaptor's, by aiohttp."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from kata_caa.errors import AdaptorError

_CLOSE_TIMEOUT = 5.0  # seconds that answers under way are given
_LINGER = 1.0  # seconds that a client whose request was refused may go on to send it


class ServeError(AdaptorError):
    """A port cannot be listened at."""


@asynccontextmanager
async def serving(
    application: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None, *, shared: bool = False
) -> AsyncIterator[int]:
    """Serve as long as the context lasts; yields the port, which matters where 0 was asked for.

    Args:
        application: What is served.
        host: The address; empty is all.
        port: TCP port.
        tls: How it is encrypted; None is not.
        shared: Whether others may listen at the same port.

    Raises:
        ServeError: The port cannot be listened at.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSE_TIMEOUT, lingering_time=_LINGER)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port, ssl_context=tls, reuse_port=shared or None)
        try:
            await site.start()
        except OSError as error:
            raise ServeError(f"{host}:{port} cannot be listened at: {error.strerror or error}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def healthy(request: web.Request) -> web.Response:
    """Who answers lives."""
    return web.Response(text="ok\n")
