"""Processors and memory that the host has plugged in: put to use by writing to sysfs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from kata_agent.errors import AgentError

CPUS = Path("/sys/devices/system/cpu")
MEMORY = Path("/sys/devices/system/memory")

# sysfs does not tell when a processor appears, and its uevent comes before it can be put online.
_TRIES = 100
_PAUSE = 0.05  # seconds


async def online_cpus(wanted: int, root: Path = CPUS) -> None:
    """Put processors online until so many are.

    Args:
        wanted: How many there shall be, those from boot included.
        root: Where sysfs shows them.

    Raises:
        AgentError: They did not appear within five seconds.
    """
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE)
        online = _count_online(root)
        if online >= wanted:
            return
    raise AgentError(f"only {online} of {wanted} processors are online after {_TRIES * _PAUSE:g} s")


def _count_online(root: Path) -> int:
    return sum(_is_online(cpu) for cpu in root.glob("cpu[0-9]*"))


def _is_online(cpu: Path) -> bool:
    """Whether the processor is online, having tried to put it there; the first has no switch."""
    switch = cpu / "online"
    if not switch.exists() or switch.read_text().strip() == "1":
        return True
    try:
        switch.write_text("1")
    except OSError:
        return False  # not ready yet
    return switch.read_text().strip() == "1"


def online_memory(root: Path = MEMORY) -> None:
    """Put every block of memory online that is not.

    Raises:
        OSError: The kernel refuses a block.
    """
    for state in root.glob("memory[0-9]*/state"):
        if state.read_text().strip() == "offline":
            state.write_text("online")


def probe_memory(addresses: Iterable[int], root: Path = MEMORY) -> None:
    """Tell a kernel that does not notice by itself of memory plugged in at physical addresses.

    Raises:
        OSError: The kernel has no such switch, or nothing is there.
    """
    for address in addresses:
        (root / "probe").write_text(f"0x{address:X}")


def memory_block_size(root: Path = MEMORY) -> int:
    """Bytes of one block of memory, the unit of hot-plugging; 0 where the kernel cannot."""
    try:
        return int((root / "block_size_bytes").read_text(), 16)
    except FileNotFoundError:
        return 0
