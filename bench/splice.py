"""How fast a splice is: a client, a proxy and a server, each a process of its own; with TLS before the proxy, and
without.

It is what a peer pod's calls pass twice: in the adaptor's proxy, and in the pod VM's forwarder. Three processes share
this machine's processors, so the figures are of all three.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.ttrpc import RUNS, spread
from kata_caa.forwarder import tls
from kata_caa.forwarder.service import Forwarder, listening
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server
from tests.pki import pair

Figure = tuple[str, str, str]

NAME = "podvm"
SERVICE = "bench.Splice"
SIZE = 1 << 20
MESSAGES = 400


def figures() -> list[Figure]:
    """Measure; takes about twenty seconds."""
    found: list[Figure] = []
    for way, bar in (("plain", "≥ 300 MB/s"), ("TLS", "≥ 300 MB/s")):
        with splicing(way) as (port, context):
            calls, up, down = asyncio.run(measure(port, context))
        found += [
            (f"splice, {way}: unary calls, 64 in flight", f"{spread(calls)} /s", ""),
            (f"splice, {way}: requests of 1 MiB, 4 in flight", f"{spread(up)} MB/s", bar),
            (f"splice, {way}: answers of 1 MiB, 4 in flight", f"{spread(down)} MB/s", bar),
        ]
    return found


async def measure(port: int, context: ssl.SSLContext | None) -> tuple[list[float], list[float], list[float]]:
    async with Client("splice") as client:
        loop = asyncio.get_running_loop()
        name = NAME if context is not None else None
        await loop.create_connection(lambda: client.link, "127.0.0.1", port, ssl=context, server_hostname=name)
        message = b"\xa5" * SIZE
        await rate(client, "Sink", message, 100, 4)  # warm up all sides
        calls = sorted([await rate(client, "Sink", b"x" * 100, 20_000, 64) for _ in range(RUNS)])
        up = sorted([await rate(client, "Sink", message, MESSAGES, 4) * SIZE / 1e6 for _ in range(RUNS)])
        down = sorted([await rate(client, "Source", b"", MESSAGES, 4) * SIZE / 1e6 for _ in range(RUNS)])
    return calls, up, down


async def rate(client: Client, method: str, payload: bytes, calls: int, in_flight: int) -> float:
    """Calls per second."""

    async def worker() -> None:
        for _ in range(calls // in_flight):
            await client.call(SERVICE, method, payload, timeout=30)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return calls / (time.perf_counter() - began)


@contextmanager
def splicing(way: str) -> Iterator[tuple[int, ssl.SSLContext | None]]:
    """A server and a forwarder before it; gives the latter's port, and how it is dialled."""
    server, client = pair(NAME), pair("client", client=True)
    with tempfile.TemporaryDirectory() as directory:
        files = {"cert": server.certificate, "key": server.key, "ca": client.certificate}
        for name, text in (*files.items(), ("client", client.certificate + client.key)):
            Path(directory, name).write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=server.certificate)
        context.load_cert_chain(Path(directory, "client"))
        with process("server", directory), process(way, directory) as told:
            yield int(told), context if way == "TLS" else None


@contextmanager
def process(role: str, directory: str) -> Iterator[str]:
    """This module in a process of its own; gives its first line."""
    with subprocess.Popen([sys.executable, "-m", "bench.splice", role, directory], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().decode()
        finally:
            child.terminate()


async def play(role: str, directory: str) -> None:
    """Be the server, or the splice."""
    address = UnixAddress(f"{directory}/server")
    if role == "server":
        server = Server()
        server.add_raw(SERVICE, "Sink", sink)
        server.add_raw(SERVICE, "Source", source)
        await server.listen(address)
        print("listening", flush=True)
    else:
        context = tls.server_context(material(Path(directory))) if role == "TLS" else None
        forwarder = Forwarder(address, hook, [("grpc.AgentService", "CreateContainer")])
        listener = listening("127.0.0.1", 0)
        await forwarder.serve(listener, context)
        port = listener.getsockname()[1]
        print(port, flush=True)
    await asyncio.get_running_loop().create_future()


def material(directory: Path) -> tls.Material:
    return tls.Material(*((directory / name).read_text() for name in ("cert", "key", "ca")))


async def sink(payload: bytes, context: Context) -> bytes:
    return b""


async def source(payload: bytes, context: Context) -> bytes:
    return b"\xa5" * SIZE


async def hook(service: str, method: str, payload: bytes) -> None:
    """Never called: the calls are others."""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(play(*sys.argv[1:]))
    else:
        for name, value, bar in figures():
            print(f"{name:50} {value:>25}   {bar}")
