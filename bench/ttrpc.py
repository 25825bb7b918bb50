"""How fast ttrpc is: calls, echoes and latency over a Unix socket between two processes.

The figures are one client's and one server's: Python on one processor each.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server

Figure = tuple[str, str, str]
"""Name, value, bar."""

SERVICE = "bench.Echo"
CALLS = 20_000
ECHOES = 1_000
ECHO_SIZE = 1 << 20
ECHOES_IN_FLIGHT = 4
RUNS = 5


def figures() -> list[Figure]:
    """Measure; takes about ten seconds."""
    with serving() as address:
        return asyncio.run(measure(address))


async def measure(address: UnixAddress) -> list[Figure]:
    async with connect(address, timeout=5) as client:
        await throughput(client, b"", 2_000, 64)  # warm up both sides
        calls = sorted([await throughput(client, b"x" * 100, CALLS, 64) for _ in range(RUNS)])
        echo = b"\xa5" * ECHO_SIZE
        await throughput(client, echo, 50, ECHOES_IN_FLIGHT)
        echoes = sorted([await throughput(client, echo, ECHOES, ECHOES_IN_FLIGHT) for _ in range(RUNS)])
        rates = [rate * ECHO_SIZE / 1e6 for rate in echoes]
        alone = await latencies(client, 5_000, 1)
        crowd = await latencies(client, CALLS, 64)
    return [
        ("ttrpc: unary calls, 64 in flight", f"{spread(calls)} /s", "≥ 8,000 /s"),
        ("ttrpc: 1 MiB echoes, 4 in flight, payload one way", f"{spread(rates)} MB/s", "≥ 500 MB/s"),
        ("ttrpc: latency p50 / p99, 1 in flight", f"{quantile(alone, 0.5)} / {quantile(alone, 0.99)}", ""),
        ("ttrpc: latency p50 / p99, 64 in flight", f"{quantile(crowd, 0.5)} / {quantile(crowd, 0.99)}", ""),
    ]


async def throughput(client: Client, payload: bytes, calls: int, in_flight: int) -> float:
    """Calls per second."""

    async def worker() -> None:
        for _ in range(calls // in_flight):
            answer = await client.call(SERVICE, "Echo", payload, timeout=30)
            assert len(answer) == len(payload)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return calls / (time.perf_counter() - began)


async def latencies(client: Client, calls: int, in_flight: int) -> list[float]:
    """Seconds per call, sorted."""
    seconds: list[float] = []

    async def worker() -> None:
        for _ in range(calls // in_flight):
            began = time.perf_counter()
            await client.call(SERVICE, "Echo", b"x" * 100, timeout=30)
            seconds.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return sorted(seconds)


def spread(ordered: list[float]) -> str:
    """Median, least and most."""
    return f"{ordered[len(ordered) // 2]:,.0f} ({ordered[0]:,.0f}–{ordered[-1]:,.0f})"


def quantile(ordered: list[float], share: float) -> str:
    return f"{ordered[int(len(ordered) * share)] * 1e6:,.0f} µs"


@contextmanager
def serving() -> Iterator[UnixAddress]:
    """An echo server in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "echo.sock")
        command = [sys.executable, "-m", "bench.ttrpc", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            try:
                yield UnixAddress(str(path))
            finally:
                server.terminate()


async def serve(path: str) -> None:
    async def echo(payload: bytes, context: Context) -> bytes:
        return payload

    server = Server()
    server.add_raw(SERVICE, "Echo", echo)
    await server.listen(UnixAddress(path))
    print("listening", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(sys.argv[1]))
    else:
        for name, value, bar in figures():
            print(f"{name:45} {value:>20}   {bar}")
