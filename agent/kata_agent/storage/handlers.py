"""One function per storage driver: each makes what a `Storage` asks for at its mount point.

What needs more than a mount has a module of its own, loaded when it is first asked for. A handler returns how the
storage is undone when nobody uses it any more, or None for what stays until the sandbox ends.
Source: kata-containers' `src/agent/src/storage/`, a file per driver.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.storage.context import Cleanup, Context
from kata_agent.storage.mounting import mount, number, unmount

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage

Handler = Callable[["Storage", Context], Awaitable[Cleanup | None]]

_SETGID = 0o2000


async def virtio_fs(storage: Storage, context: Context) -> Cleanup | None:
    """A file system shared by the host, by its tag; left alone where one is mounted already.

    A machine without virtio-fs, such as a set of namespaces, has the share mounted from the beginning.
    """
    if linux.is_mount_point(storage.mount_point):
        return None
    return await mounted(storage)


async def bind(storage: Storage, context: Context) -> Cleanup:
    """Another place of the guest."""
    return await mounted(storage, extra=("bind",))


async def local(storage: Storage, context: Context) -> None:
    """A directory of the guest, with `mode=OCTAL` and `fsgid=N`."""

    def make() -> None:
        directory = Path(storage.mount_point)
        group, mode = number(storage, "fsgid"), number(storage, "mode", 8)
        directory.mkdir(parents=True, exist_ok=True)
        if group is not None:
            os.chown(directory, -1, group)
        if mode is None:
            mode = directory.stat().st_mode & 0o7777
        directory.chmod(mode | (_SETGID if group is not None else 0))

    await asyncio.to_thread(make)


async def ephemeral(storage: Storage, context: Context) -> None:
    """Memory, also in huge pages, for as long as the sandbox lives."""
    from kata_agent.storage import memory

    await asyncio.to_thread(memory.mount_memory, storage)


async def overlayfs(storage: Storage, context: Context) -> Cleanup:
    """Layers, read-only or with one to write to."""
    from kata_agent.storage import overlay

    return await overlay.mount_layers(storage, context.container_id)


async def watchable_bind(storage: Storage, context: Context) -> Cleanup:
    """A copy that is kept up to date, so that inotify works."""
    from kata_agent.storage import watchable

    return await watchable.follow(storage)


async def block_device(storage: Storage, context: Context) -> Cleanup:
    """A block device with a file system: blk, blk-ccw, mmioblk, nvdimm, scsi."""
    from kata_agent.storage import block

    return await block.mount_device(storage, context)


async def image_guest_pull(storage: Storage, context: Context) -> Cleanup:
    """An image that the guest pulls."""
    from kata_agent.storage import guest_pull

    return await guest_pull.present(storage, context)


HANDLERS: dict[str, Handler] = {
    "bind": bind,
    "blk": block_device,
    "blk-ccw": block_device,
    "ephemeral": ephemeral,
    "image_guest_pull": image_guest_pull,
    "local": local,
    "mmioblk": block_device,
    "nvdimm": block_device,
    "overlayfs": overlayfs,
    "scsi": block_device,
    "virtio-fs": virtio_fs,
    "watchable-bind": watchable_bind,
}

# Drivers of upstream's agent that this one does not have.
UNSUPPORTED = ("erofs.multi-layer",)


async def mounted(storage: Storage, *, extra: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Cleanup:
    """Mount, as `mounting.mount`; gives how it is undone."""
    await asyncio.to_thread(mount, storage, extra=extra, without=without)
    mount_point = storage.mount_point

    async def cleanup() -> None:
        await asyncio.to_thread(unmount, mount_point)

    return cleanup
