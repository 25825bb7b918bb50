"""kata-monitor as Prometheus meets it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_py.monitor.command import serve

BOUND = 10.0  # seconds that anything here may take


@dataclass(frozen=True)
class Reply:
    """What the monitor answered."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def value(self, sample: str) -> float:
        """The value of the one sample of that name and labels."""
        (found,) = re.findall(rf"^{re.escape(sample)} (\S+)$", self.text, re.M)
        return float(found)


@dataclass(frozen=True)
class Monitor:
    """A monitor that serves."""

    port: int

    async def get(self, target: str, *, method: str = "GET", host: str = "localhost:8090", **fields: str) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        header = {"Host": host} | {name.replace("_", "-"): value for name, value in fields.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in header.items() if value)
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode())
        async with asyncio.timeout(BOUND):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *rest = head.decode().split("\r\n")
        return Reply(int(first.split(" ")[1]), dict(line.split(": ", 1) for line in rest), body)


@asynccontextmanager
async def monitoring(*roots: Path, host: str = "127.0.0.1", runtime: Path | None = None) -> AsyncIterator[Monitor]:
    """A monitor of the sandboxes below these roots."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(host, 0, runtime, roots, ready))
    try:
        await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND)
        yield Monitor(ready.result() if ready.done() else await task)  # type: ignore[arg-type]
    finally:
        task.cancel()
        await asyncio.wait([task])
