"""A server in a process of its own: `python -m tests.functional.ttrpc.peer SOCKET`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.stream import ServerStream

SERVICE = "test.Peer"


async def echo(payload: bytes, context: Context) -> bytes:
    return payload


async def never(payload: bytes, context: Context) -> bytes:
    await asyncio.get_running_loop().create_future()
    return b""


async def write_when_told(payload: bytes, context: Context) -> bytes:
    """Wait until a file is there, then write another: the work of a handler that its caller may not wait for."""
    told, wrote = (Path(name) for name in payload.decode().split("\n"))
    Path(f"{told}.begun").touch()
    while not told.exists():  # noqa: ASYNC110 the other process has no other way to tell
        await asyncio.sleep(0.005)
    wrote.touch()
    return b""


async def peak(payload: bytes, context: Context) -> bytes:
    """The most memory this process ever had, in KiB; empty payload, or "reset" to begin anew."""
    if payload == b"reset":
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return line.split()[1].encode()
    raise AssertionError("no VmHWM")


async def pour(stream: ServerStream, context: Context) -> None:
    """Send so many messages of so many bytes."""
    count, size = map(int, (await stream.receive() or b"").split())
    message = bytes(size)
    for _ in range(count):
        await stream.send(message)


async def swallow(stream: ServerStream, context: Context) -> bytes:
    """Read slowly; answers with the count of bytes."""
    total = 0
    async for message in stream:
        total += len(message)
        await asyncio.sleep(0.0005)
    return b"%d" % total


async def main(path: str) -> None:
    server = Server()
    server.add_raw(SERVICE, "Echo", echo)
    server.add_raw(SERVICE, "Never", never)
    server.add_raw(SERVICE, "WriteWhenTold", write_when_told)
    server.add_raw(SERVICE, "Peak", peak)
    server.add_raw_stream(SERVICE, "Pour", pour)
    server.add_raw_stream(SERVICE, "Swallow", swallow)
    await server.listen(UnixAddress(path))
    print("listening", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
