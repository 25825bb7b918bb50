"""Waiting for mount points. The kernel tells of each change of a process's mounts, so nothing is polled.

Source: proc(5), "/proc/pid/mountinfo"; Linux `fs/proc_namespace.c`, `mounts_poll`.
"""

from __future__ import annotations

import asyncio
import re
import select
from pathlib import Path
from typing import Final

from kata_caa.errors import ForwarderError

_TABLE: Final = "/proc/self/mountinfo"
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


async def wait_mounted(path: str, timeout: float) -> None:
    """Wait until something is mounted at the path.

    Args:
        path: The mount point.
        timeout: Seconds.

    Raises:
        ForwarderError: Nothing was within that time.
    """
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with open(_TABLE, "rb") as table, select.epoll() as changes:  # noqa: ASYNC230, PTH123 made by the kernel
        # Of the table itself the event loop would hear all the time: it can always be read.
        changes.register(table.fileno(), select.EPOLLPRI)
        loop.add_reader(changes.fileno(), changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not _is_mounted(path):
                    await changed.wait()
                    changes.poll(0)
                    changed.clear()
        except TimeoutError:
            raise ForwarderError(f"waited {timeout:g} s for a device to be mounted at {path}") from None
        finally:
            loop.remove_reader(changes.fileno())


def _is_mounted(path: str) -> bool:
    wanted = str(Path(path).resolve())
    return wanted in mount_points(Path(_TABLE).read_text(errors="surrogateescape"))


def mount_points(table: str) -> set[str]:
    """The mount points in a text of the form of `mountinfo`."""
    return {_ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in table.splitlines()}
