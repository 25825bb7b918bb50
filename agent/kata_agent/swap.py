"""Disks to swap to, by their place on the PCI bus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from kata_agent.errors import AgentError, InvalidArgument

_ROOT = Path("/sys/devices/pci0000:00")
_PAUSE = 0.05  # seconds


async def disk(slots: Sequence[int], root: Path = _ROOT, timeout: float = 3.0) -> str:
    """Path of a virtio disk's device, once it is there.

    Args:
        slots: Slot numbers from the root complex 00 down: those of the bridges, then the disk's.
        root: The root complex, as sysfs shows it.
        timeout: Seconds to wait for the disk.

    Raises:
        InvalidArgument: No slots, or one that PCI has not.
        AgentError: The disk did not appear.
    """
    if not slots or not all(0 <= slot < 32 for slot in slots):
        raise InvalidArgument(f"not a PCI path: {list(slots)}")
    for _ in range(max(1, round(timeout / _PAUSE))):
        name = await asyncio.to_thread(_find, root, slots)
        if name is not None:
            return f"/dev/{name}"
        await asyncio.sleep(_PAUSE)
    path = "/".join(f"{slot:02x}" for slot in slots)
    raise AgentError(f"no disk appeared at PCI path {path} within {timeout:g} s")


def _find(place: Path, slots: Sequence[int]) -> str | None:
    bus = place.name.removeprefix("pci")
    for number, slot in enumerate(slots, 1):
        place /= f"{bus}:{slot:02x}.0"
        if number < len(slots):
            buses = [entry.name for entry in place.glob("pci_bus/*")]
            if not buses:
                return None
            bus = buses[0]
    return next((disk.name for disk in place.glob("virtio*/block/*")), None)
