"""Giving a mount of one container to another of the same pod, such as a file system that a sidecar serves.

Source: `shared_mounts` of kata-containers' CreateContainer; open_tree(2), move_mount(2).
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import ExitStack
from pathlib import Path

from kata_agent import linux
from kata_agent.errors import AgentError
from kata_agent.watch import Watch

_TIMEOUT = 10.0  # seconds for the mount to appear, as upstream's


async def share(source_pid: int, source: str, target_pid: int, target: str) -> None:
    """Mount in one process's mount namespace what is mounted in another's.

    Args:
        source_pid: A process that sees the mount.
        source: Where it sees it; waited for.
        target_pid: A process that shall see it.
        target: Where; made if missing.

    Raises:
        AgentError: It did not appear, or cannot be moved.
    """
    try:
        await _appeared(source_pid, source.rstrip("/") or "/")
        await asyncio.to_thread(_share, source_pid, source, target_pid, target)
    except TimeoutError:
        raise AgentError(f"nothing was mounted at {source} within {_TIMEOUT:g} s") from None
    except OSError as error:
        raise AgentError(f"cannot share the mount at {source} as {target}: {error}") from error


async def _appeared(pid: int, path: str) -> None:
    changed = asyncio.Event()
    async with asyncio.timeout(_TIMEOUT):
        with Watch(Path(f"/proc/{pid}/mountinfo"), changed.set) as mounts:
            while path not in linux.mount_points(mounts.read().splitlines()):
                await changed.wait()
                changed.clear()


def _share(source_pid: int, source: str, target_pid: int, target: str) -> None:
    failures: list[OSError] = []

    def move() -> None:
        with ExitStack() as stack:
            try:
                namespaces = [os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY) for pid in (source_pid, target_pid)]
                for fd in namespaces:
                    stack.callback(os.close, fd)
                linux.unshare(linux.CLONE_FS)
                # In a container's namespace its files are the thread's: nothing may be imported from here on.
                linux.set_namespace(namespaces[0], linux.CLONE_NEWNS)
                tree = linux.clone_mount(source)
                stack.callback(os.close, tree)
                is_directory = os.path.isdir(source)  # noqa: PTH112
                linux.set_namespace(namespaces[1], linux.CLONE_NEWNS)
                _make(target, is_directory)
                linux.move_mount(tree, target)
            except OSError as error:
                failures.append(error)

    # A thread of its own: a namespace belongs to a thread, and this one ends here.
    thread = threading.Thread(target=move, name="shared mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _make(target: str, is_directory: bool) -> None:
    place = Path(target)
    if is_directory:
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
