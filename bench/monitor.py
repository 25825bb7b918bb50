"""How long Prometheus waits for the figures of a node with many sandboxes, and what that costs the monitor.

Three processes: shims that serve real sockets, the monitor, and who asks it. A shim's figures of the host are taken
anew each time, by the shim's own code; those of its guest are real ones of this machine, taken once, as a guest takes
them on its own processors.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

Figure = tuple[str, str, str]

SANDBOXES = 50
SCRAPES = 20


def figures() -> list[Figure]:
    """Measure; takes about fifteen seconds."""
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as root, running("shims", root):
        with running("monitor", root) as (monitor, port):
            scrape(port)  # what is imported late is
            taken = [scrape(port) for _ in range(SCRAPES)]
            memory = peak(monitor)
        with running("hung", root), running("monitor", root) as (_, port):
            scrape(port)
            held_up, _ = scrape(port)
    seconds = sorted(each for each, _ in taken)
    packed = taken[-1][1]
    text = gzip.decompress(packed)
    samples = sum(not line.startswith(b"#") for line in text.splitlines())
    median = seconds[len(seconds) // 2]
    return [
        (
            f"monitor: a scrape of {SANDBOXES} sandboxes",
            f"{median * 1e3:.0f} ms (of {SCRAPES}: {seconds[0] * 1e3:.0f}–{seconds[-1] * 1e3:.0f})",
            "≤ 1 s",
        ),
        ("monitor: … and one whose shim hangs (bound: 3 s)", f"{held_up:.2f} s", ""),
        (
            f"monitor: what is told of {SANDBOXES} sandboxes",
            f"{samples:,} samples, {len(text) >> 10:,} KiB, packed {len(packed) >> 10} KiB",
            "",
        ),
        (f"monitor: memory with {SANDBOXES} sandboxes", f"{memory} MiB", ""),
    ]


def scrape(port: int) -> tuple[float, bytes]:
    """Seconds until an answer is there, and the answer."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.status == 200
    body = answer.read()
    return time.perf_counter() - began, body


def peak(process: subprocess.Popen[str]) -> int:
    """The most that was resident of a process, in MiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


@contextmanager
def running(part: str, root: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A part in a process of its own; yields the number that it prints once it serves."""
    line = [sys.executable, "-m", "bench.monitor", part, root]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.terminate()


async def shims(root: Path) -> None:
    from kata_agent.metrics.scrape import scrape as of_guest
    from kata_py.http.server import Answer, Request, serving
    from kata_py.sandbox.sockets import SOCKET
    from kata_py.shim import metrics

    async def answer(request: Request, guest: str, programs: dict[str, int]) -> Answer:
        text = await asyncio.to_thread(metrics.of_programs, programs)
        return Answer((text + guest).encode(), metrics.CONTENT_TYPE)

    programs = dict.fromkeys(("shim", "hypervisor", "virtiofsd"), os.getpid())
    async with AsyncExitStack() as stack:
        for number in range(SANDBOXES):
            directory = root / f"{number:064x}"
            directory.mkdir()
            handler = partial(answer, guest=metrics.of_agent(of_guest(number)), programs=programs)
            await stack.enter_async_context(serving(str(directory / SOCKET), handler))
        print(SANDBOXES, flush=True)
        await asyncio.Event().wait()


async def hung(root: Path) -> None:
    from kata_py.http.server import Answer, Request, serving
    from kata_py.sandbox.sockets import SOCKET

    async def hang(request: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError("it went on")

    (root / "hung").mkdir()
    async with serving(str(root / "hung" / SOCKET), hang):
        print(1, flush=True)
        await asyncio.Event().wait()


async def monitor(root: Path) -> None:
    from kata_py.monitor.command import serve

    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    ready.add_done_callback(lambda bound: print(bound.result(), flush=True))
    await serve("127.0.0.1", 0, None, (root,), ready)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        part = {"shims": shims, "hung": hung, "monitor": monitor}[sys.argv[1]]
        asyncio.run(part(Path(sys.argv[2])))
    else:
        for name, value, bar in figures():
            print(f"{name:65} {value:>25}   {bar}")
