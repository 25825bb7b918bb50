"""How fast the adaptor's proxy is: a runtime, the proxy and a machine, each a process of its own; TLS to the machine.

Three processes share this machine's processors, so the figures are of all three.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.splice import MESSAGES, SERVICE, SIZE, rate, sink, source
from bench.ttrpc import RUNS, latencies, quantile, spread
from kata_caa.forwarder.tls import Material, server_context
from kata_caa.proxy import AgentProxy, Endpoint
from kata_caa.tls import Profile, Tls
from kata_protos.health_pb2 import HealthCheckResponse
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server

Figure = tuple[str, str, str]

NAME = "podvm"
SOCKET = "agent.ttrpc"
ECHO = "bench.Echo"  # what `bench.ttrpc.latencies` calls


def figures() -> list[Figure]:
    """Measure; takes about fifteen seconds."""
    found: list[Figure] = []
    for way in ("plain", "TLS"):
        with proxying(way) as address:
            calls, up, down, alone = asyncio.run(measure(address))
        found += [
            (f"proxy, {way}: unary calls, 64 in flight", f"{spread(calls)} /s", ""),
            (f"proxy, {way}: requests of 1 MiB, 4 in flight", f"{spread(up)} MB/s", "≥ 300 MB/s"),
            (f"proxy, {way}: answers of 1 MiB, 4 in flight", f"{spread(down)} MB/s", "≥ 300 MB/s"),
            (f"proxy, {way}: latency p50 / p99, 1 in flight", f"{quantile(alone, 0.5)} / {quantile(alone, 0.99)}", ""),
        ]
    return found


async def measure(address: UnixAddress) -> tuple[list[float], list[float], list[float], list[float]]:
    async with connect(address, timeout=5) as client:
        message = b"\xa5" * SIZE
        await rate(client, "Sink", message, 100, 4)  # warm up all sides
        calls = sorted([await rate(client, "Sink", b"x" * 100, 20_000, 64) for _ in range(RUNS)])
        up = sorted([await rate(client, "Sink", message, MESSAGES, 4) * SIZE / 1e6 for _ in range(RUNS)])
        down = sorted([await rate(client, "Source", b"", MESSAGES, 4) * SIZE / 1e6 for _ in range(RUNS)])
        return calls, up, down, await latencies(client, 3_000, 1)


@contextmanager
def proxying(way: str) -> Iterator[UnixAddress]:
    """A machine and its proxy; gives where the runtime connects."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        port = stack.enter_context(process("machine", way, directory))
        stack.enter_context(process("proxy", way, directory, port))
        yield UnixAddress(f"{directory}/{SOCKET}")


@contextmanager
def process(*arguments: str) -> Iterator[str]:
    """This module in a process of its own; gives its first line."""
    with subprocess.Popen([sys.executable, "-m", "bench.proxy", *arguments], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().decode().strip()
        finally:
            child.terminate()


async def play(role: str, way: str, directory: str, port: str = "0") -> None:
    """Be the machine, or the proxy."""
    tls = Tls(Profile(disable=way == "plain"), Path(directory, "tls"))
    issued = tls.issue(NAME)
    if role == "machine":
        server = Server()
        server.add_raw(SERVICE, "Sink", sink)
        server.add_raw(SERVICE, "Source", source)
        server.add_raw(ECHO, "Echo", echo)
        server.add_raw("grpc.Health", "Check", check)
        context = None
        if issued.server is not None:
            context = server_context(Material(issued.server.certificate, issued.server.key, issued.client_ca))
        listener = await asyncio.get_running_loop().create_server(server.accept, "127.0.0.1", 0, ssl=context)
        print(listener.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()
    dialer = tls.dialer(issued.material, NAME)
    endpoint = Endpoint("127.0.0.1", int(port), dialer.server_name, dialer.context)
    async with AgentProxy(Path(directory, SOCKET), endpoint, timeout=10) as proxy:
        await proxy.ready()
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


async def echo(payload: bytes, context: Context) -> bytes:
    return payload


async def check(payload: bytes, context: Context) -> bytes:
    return HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(play(*sys.argv[1:]))
    else:
        for name, value, bar in figures():
            print(f"{name:50} {value:>25}   {bar}")
