"""How fast the guest starts, and what it takes: time to the agent's first answer, idle memory, sizes.

Start is measured from executing QEMU, under TCG, on one processor of the guest, in turns with the same kernel, machine
and kernel parameters starting a busybox as init out of an initramfs that holds nothing else.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.guest_machine import Boot, guest, run
from image.tree import File, Link, Tree
from kata_protos.agent_pb2 import CreateSandboxRequest, KernelModule
from kata_protos.agent_ttrpc import AgentClient

Figure = tuple[str, str, str]
"""Name, value, bar."""

RUNS = 7
MEBIBYTE = 1 << 20
BUSYBOX = Path("/bin/busybox")
INIT = b"#!/bin/busybox sh\necho kata-boot: busybox\nexec busybox sleep 3600\n"


def figures() -> list[Figure]:
    """Measure; takes about a minute."""
    with TemporaryDirectory(prefix="bench-") as directory:
        initramfs = Path(directory) / "initramfs.img"
        initramfs.write_bytes(busybox_initramfs())
        return asyncio.run(measure(guest(), initramfs))


async def measure(boot: Boot, busybox: Path) -> list[Figure]:
    reference, starts = [], []
    for _ in range(RUNS):
        reference.append(await busybox_start(replace(boot, initramfs=busybox)))
        starts.append(await agent_start(boot))
    memory = await idle_memory(boot)
    ratio = statistics.median(starts) / statistics.median(reference)
    return [
        ("guest: QEMU's start to a busybox init", seconds(reference), ""),
        ("guest: QEMU's start to the agent's answer", seconds(starts), ""),
        ("guest: the second as a multiple of the first", f"{ratio:.2f}", "≤ 2.2"),
        ("guest: memory in use, idle, of 2 GiB", f"{memory / MEBIBYTE:.0f} MiB", "≤ 110 MiB"),
        ("guest: root image", f"{boot.image.stat().st_size / MEBIBYTE:.1f} MiB", "≤ 64 MiB"),
        ("guest: initramfs", f"{boot.initramfs.stat().st_size / MEBIBYTE:.1f} MiB", "≤ 4 MiB"),
    ]


async def busybox_start(boot: Boot) -> float:
    """Seconds until a busybox init speaks."""
    async with run(boot) as machine:
        return await machine.said("kata-boot: busybox")


async def agent_start(boot: Boot) -> float:
    """Seconds until the agent answers `Check`."""
    async with run(boot) as machine, machine.agent() as (_, elapsed):
        return elapsed


async def idle_memory(boot: Boot) -> int:
    """Bytes in use once the agent has a sandbox, and so has loaded all of itself, but no container."""
    async with run(boot) as machine, machine.agent() as (client, _):
        balloon = KernelModule(name="virtio_balloon")
        request = CreateSandboxRequest(sandbox_id="idle", hostname="idle", kernel_modules=[balloon])
        await AgentClient(client).CreateSandbox(request, timeout=30)
        return await machine.used_memory()


def busybox_initramfs() -> bytes:
    tree = Tree()
    tree.add("bin/busybox", File(BUSYBOX.read_bytes(), executable=True))
    tree.add("bin/sh", Link("busybox"))
    tree.add("init", File(INIT, executable=True))
    return tree.cpio()


def seconds(values: Sequence[float]) -> str:
    """Median and spread."""
    return f"{statistics.median(values):.2f} s ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    for name, value, bar in figures():
        print(f"{name:<50} {value:<24} {bar}")
