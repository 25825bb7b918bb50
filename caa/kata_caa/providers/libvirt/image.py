"""An image's way into the pool: `cloud-api-adaptor libvirt image upload`."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from kata_caa.disk import Disk, Progress
from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.api import ImageStore, StoredImage
from kata_caa.providers.libvirt import binding, volume
from kata_caa.providers.libvirt.binding import Connect
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.providers.libvirt.connection import CANCEL_TIMEOUT, Connection, Opener
from kata_caa.providers.libvirt.volume import VolumeFacts

UPLOAD_TIMEOUT = 3600.0  # seconds; an image has gigabytes
_HEAD = 64 << 10  # bytes that are sent last
_NAME = re.compile(r".+-[0-9a-f]{12}\.(?:qcow2|raw)")


class LibvirtImages(ImageStore):
    """The pool as a place of images; an asynchronous context manager of itself.

    A volume has no tags, so the digest is in its name alone, and what is unfinished is told by its beginning.

    Args:
        config: The host and the pool.
        opener: Opens a connection, blocking.
    """

    setting = "LIBVIRT_VOL_NAME"

    def __init__(self, config: LibvirtConfig, opener: Opener = binding.open_host) -> None:
        self._config = config
        self._opener = opener

    async def __aenter__(self) -> LibvirtImages:
        self._connection = Connection(self._config.uri, self._opener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def upload(self, disk: Disk, stem: str, progress: Progress) -> StoredImage:
        """As the interface has it. What a killed upload left is replaced."""
        name = f"{disk.named(stem)}.{disk.form}"
        found = await self._connection.call(
            f"look for volume {name}", lambda connect: self._is_whole(connect, disk, name)
        )
        if not found:
            await upload(self._config, disk.path, name, progress, self._opener)
        return StoredImage(name, name, disk.digest, found)

    async def stored(self) -> Sequence[StoredImage]:
        """As the interface has it; of the digest, only the beginning is known."""

        def names(connect: Connect) -> list[str]:
            pool = connect.storagePoolLookupByName(self._config.pool)
            volume.refresh(pool)
            return sorted(filter(_NAME.fullmatch, pool.listVolumes()))

        listed = await self._connection.call("list volumes", names)
        return [StoredImage(name, name, name.rpartition(".")[0][-12:], True) for name in listed]

    def _is_whole(self, connect: Connect, disk: Disk, name: str) -> bool:
        """Whether the volume is there; one whose beginning is missing, which goes last, is deleted.

        libvirt refuses to delete a volume that another upload is filling.
        """
        pool = connect.storagePoolLookupByName(self._config.pool)
        if not (there := volume.find(pool, name)):
            return False
        with disk.path.open("rb") as image:
            wanted = image.read(_HEAD)
        if volume.head(connect, there, len(wanted)) == wanted:
            return True
        there.delete(0)
        return False


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
