"""How long Prometheus waits for the figures of many sandboxes that are real: shims, their management sockets, agents.

The namespace driver stands for the machines, so guest and node share the processors, and each agent is the real one.
Run it in a room: `tools/room .venv/bin/python -m bench agents`. It takes a minute or two.
"""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench import monitor
from kata_py.sandbox import record
from tests.launcher import write as write_launcher
from tests.manager import Container, Manager
from tools import configuration, oci_image

Figure = tuple[str, str, str]

SANDBOXES = 50
SCRAPES = 10
AT_ONCE = 4  # starts


def figures() -> list[Figure]:
    """Measure; needs root, and a machine where no other sandboxes are."""
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as top:
        return asyncio.run(_figures(Path(top)))


async def _figures(top: Path) -> list[Figure]:
    rootfs = top / "rootfs"
    rootfs.mkdir()
    oci_image.rootfs(rootfs)
    config = configuration.write(top / "configuration.toml", None, program="bench", hypervisor="namespace")
    config.write_text(config.read_text().replace("enable_debug = true", ""))
    manager = Manager(write_launcher(top / "bin"), top, config, rootfs)
    async with AsyncExitStack() as stack:
        turns = asyncio.Semaphore(AT_ONCE)

        async def start(number: int) -> Container:
            async with turns:
                # Entered and left by different tasks, which the manager does not mind.
                container = await stack.enter_async_context(manager.container(f"bench-{number}", "sleep", "100000"))
                await container.start()
                return container

        containers = await asyncio.gather(*(start(number) for number in range(SANDBOXES)))
        taken, used = await asyncio.to_thread(_scraped, [container.shim_pid for container in containers])
    text = gzip.decompress(taken[-1][1]).decode()
    told = sum(line.startswith("kata_agent_threads{") for line in text.splitlines())
    assert told == SANDBOXES, f"{told} agents have told"
    seconds = sorted(each for each, _ in taken)
    median = seconds[len(seconds) // 2]
    samples = sum(not line.startswith("#") for line in text.splitlines())
    return [
        (
            f"monitor: a scrape of {SANDBOXES} sandboxes with their agents",
            f"{median * 1e3:.0f} ms (of {SCRAPES}: {seconds[0] * 1e3:.0f}–{seconds[-1] * 1e3:.0f})",
            "≤ 1 s",
        ),
        (
            "monitor: … processor time of it",
            ", ".join(f"{name} {each * 1e3:.0f} ms" for name, each in used.items()),
            "",
        ),
        (f"monitor: … what is told of {SANDBOXES}", f"{samples:,} samples, {len(text) >> 10:,} KiB", ""),
    ]


def _scraped(shims: list[int]) -> tuple[list[tuple[float, bytes]], dict[str, float]]:
    """The scrapes, and the mean of the processor time that one took by who used it."""
    agents = [pid for pid in _pids() if b"-m\0kata_agent\0" in _command_line(pid)]
    with monitor.running("monitor", str(record.ROOT)) as (process, port):
        monitor.scrape(port)
        groups = {"shims": shims, "agents": agents, "monitor": [process.pid]}
        before = {name: sum(map(_processor_time, pids)) for name, pids in groups.items()}
        taken = [monitor.scrape(port) for _ in range(SCRAPES)]
        return taken, {
            name: (sum(map(_processor_time, pids)) - before[name]) / SCRAPES for name, pids in groups.items()
        }


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _processor_time(pid: int) -> float:
    """Seconds, with those of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / 100
