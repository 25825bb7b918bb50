"""An image's way into the pool: `cloud-api-adaptor image upload`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import binding, volume
from kata_caa.providers.libvirt.binding import Connect
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.providers.libvirt.connection import CANCEL_TIMEOUT, Connection, Opener
from kata_caa.providers.libvirt.volume import VolumeFacts

UPLOAD_TIMEOUT = 3600.0  # seconds; an image has gigabytes
_HEAD = 64 << 10  # bytes that are sent last


async def upload(
    config: LibvirtConfig,
    path: Path,
    name: str = "",
    progress: Callable[[int, int], None] = lambda sent, total: None,
    opener: Opener = binding.open_host,
) -> VolumeFacts:
    """Upload an image as a volume, as it is; libvirt tells qcow2 from raw by itself.

    The image's beginning goes last: of an upload that was killed there is nothing that looks like an image. One that
    fails or is cancelled leaves no volume.

    Args:
        config: The host and the pool.
        path: The image.
        name: The volume's name; empty is the configured one.
        progress: Told on the event loop how many bytes went, of how many.
        opener: Opens a connection, blocking.

    Returns:
        The volume, as libvirt sees it.

    Raises:
        ProviderError: The host refuses, or there is a volume of that name.
        OSError: The image cannot be read.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()
    name = name or config.image

    def tell(sent: int, total: int) -> None:
        if stop.is_set():
            raise InterruptedError("the upload was cancelled")
        loop.call_soon_threadsafe(progress, sent, total)

    connection = Connection(config.uri, opener)
    work = connection.call(
        f"upload {path} as volume {name}", lambda connect: _upload(connect, config, path, name, tell), UPLOAD_TIMEOUT
    )
    uploading = asyncio.create_task(work, name=f"upload {name}")
    try:
        return await asyncio.shield(uploading)
    except asyncio.CancelledError:
        stop.set()  # whereupon the thread deletes what it has made
        await asyncio.wait([uploading], timeout=CANCEL_TIMEOUT)
        uploading.cancel()
        raise
    finally:
        await connection.close()


def _upload(
    connect: Connect, config: LibvirtConfig, path: Path, name: str, tell: Callable[[int, int], None]
) -> VolumeFacts:
    pool = connect.storagePoolLookupByName(config.pool)
    volume.usable(volume.pool_facts(pool))
    if volume.find(pool, name):
        hint = f"choose another name, or delete it: virsh vol-delete --pool {config.pool} {name}"
        raise ProviderError(Fault.FATAL, f"pool {config.pool} has a volume {name} already", hint=hint)
    with path.open("rb") as image:
        size = path.stat().st_size
        made = pool.createXML(volume.blob_xml(name, size, "0644"), 0)
        try:
            head = image.read(_HEAD)
            if rest := size - len(head):
                volume.fill(connect, made, _pieces(image), rest, len(head), lambda sent: tell(sent, size))
            volume.fill(connect, made, [head], len(head), 0, lambda sent: tell(rest + sent, size))
        except BaseException:
            made.delete(0)
            raise
    volume.refresh(pool)  # whereupon its format is known
    return volume.volume_facts(pool.storageVolLookupByName(name))


def _pieces(image: IO[bytes]) -> Iterator[bytes]:
    while piece := image.read(volume.CHUNK):
        yield piece
