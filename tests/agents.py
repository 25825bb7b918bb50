"""The agent of any number of machines; with TLS it proves itself by whatever name it is called, as each would."""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kata_caa.forwarder.tls import Material, server_context
from kata_caa.tls import Profile, Tls
from kata_protos import binding_pb2
from kata_protos.binding_ttrpc import BindingService
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server
from tests.conftest import REPOSITORY
from tests.drivers.memory import Healthy


class Unbound(BindingService):
    """A machine that waits for a pod; afterwards it waits for the next one."""

    async def State(self, request: binding_pb2.StateRequest, context: Context) -> binding_pb2.StateResponse:
        return binding_pb2.StateResponse()

    async def Bind(self, request: binding_pb2.BindRequest, context: Context) -> binding_pb2.BindResponse:
        return binding_pb2.BindResponse()


@asynccontextmanager
async def agents(authorities: Path | None = None) -> AsyncIterator[int]:
    """Serve; gives the port.

    Args:
        authorities: Where the adaptor has its own, or will have them; None is without TLS.
    """
    server = Server()
    server.add(Healthy())
    server.add(Unbound())
    context = None if authorities is None else _by_name(authorities)
    listener = await asyncio.get_running_loop().create_server(server.accept, "0.0.0.0", 0, ssl=context, backlog=1000)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
        server.close()


@asynccontextmanager
async def agents_apart(authorities: Path) -> AsyncIterator[int]:
    """`agents` in a process of their own."""
    line = (sys.executable, "-m", "tests.agents", str(authorities))
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


def _by_name(directory: Path) -> ssl.SSLContext:
    """A listener's context that has a certificate of the adaptor's authority for each name."""
    tls = Tls(Profile(), directory)

    @functools.cache
    def of(name: str) -> ssl.SSLContext:
        issued = tls.issue(name)
        assert issued.server is not None
        return server_context(Material(issued.server.certificate, issued.server.key, issued.client_ca))

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = of(name or "")

    found = of("agents")
    found.sni_callback = choose
    return found


async def _main(authorities: Path) -> None:
    async with agents(authorities) as port:
        print(port, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
