"""Stopping and continuing all processes of a cgroup.

Source: `cgroup.freeze` and `cgroup.events` of the kernel's cgroup-v2 guide, `freezer.state` of v1's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kata_agent.cgroup.hierarchy import Cgroup, CgroupV1, CgroupV2
from kata_agent.errors import AgentError
from kata_agent.watch import Watch

FREEZE_TIMEOUT = 10.0  # seconds; a process in the midst of a system call that cannot be interrupted takes longest

_PAUSE_V1 = 0.005  # seconds; v1 tells nobody when it is done


async def freeze(cgroup: Cgroup) -> None:
    """Freeze all processes in it and below it; returns once every one stands still.

    Raises:
        AgentError: One would not stop in time, and all run again; or the kernel has no freezer.
    """
    try:
        async with asyncio.timeout(FREEZE_TIMEOUT):
            match cgroup:
                case CgroupV2(directory):
                    await _freeze_v2(directory)
                case CgroupV1(directories):
                    await _freeze_v1(_freezer(directories.get("freezer")))
    except TimeoutError:
        thaw(cgroup)
        raise AgentError(f"not all processes could be frozen within {FREEZE_TIMEOUT:g} s; they run on") from None
    except OSError as error:
        raise AgentError(f"cannot freeze: {error}") from error
    except asyncio.CancelledError:
        thaw(cgroup)
        raise


def thaw(cgroup: Cgroup) -> None:
    """Let them continue.

    Raises:
        AgentError: The kernel refuses; they stand still as before.
    """
    try:
        match cgroup:
            case CgroupV2(directory):
                (directory / "cgroup.freeze").write_text("0")
            case CgroupV1(directories):
                (_freezer(directories.get("freezer")) / "freezer.state").write_text("THAWED")
    except OSError as error:
        raise AgentError(f"cannot thaw: {error}") from error


async def _freeze_v2(directory: Path) -> None:
    changed = asyncio.Event()
    with Watch(directory / "cgroup.events", changed.set) as events:
        (directory / "cgroup.freeze").write_text("1")
        while "frozen 1" not in events.read().splitlines():
            await changed.wait()
            changed.clear()


async def _freeze_v1(directory: Path) -> None:
    state = directory / "freezer.state"
    state.write_text("FROZEN")
    while state.read_text().strip() != "FROZEN":
        await asyncio.sleep(_PAUSE_V1)
        state.write_text("FROZEN")  # what was forked meanwhile


def _freezer(directory: Path | None) -> Path:
    if directory is None:
        raise AgentError("this kernel has no freezer for cgroups")
    return directory
