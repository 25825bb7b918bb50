"""Overlay storage: layers that the host names, and for who writes a layer of the guest's own on top."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import InvalidArgument
from kata_agent.storage.mounting import mount, unmount

if TYPE_CHECKING:
    from kata_agent.storage.context import Cleanup
    from kata_protos.agent_pb2 import Storage

_LOG = logging.getLogger(__name__)

LAYERS = Path("/run/kata-containers/overlay")  # beside the containers' bundles, whose removal must find them empty

_WRITABLE = "io.katacontainers.fs-opt.overlay-rw"
_CREATE_DIRECTORY = "io.katacontainers.volume.overlayfs.create_directory"


async def mount_layers(storage: Storage, container_id: str) -> Cleanup:
    """Mount an overlay; with the option for it, writable by a layer that goes when the overlay does.

    Raises:
        InvalidArgument: A writable one is not for a container, or a driver option is not known.
        Unimplemented: As `mounting.mount`.
        OSError: The kernel refuses.
    """
    layer: Path | None = None
    options: tuple[str, ...] = ()
    if _WRITABLE in storage.options:
        if not container_id:
            raise InvalidArgument(f"No container id in rw overlay {storage.mount_point}")
        layer = LAYERS / container_id / storage.mount_point.strip("/").replace("/", "-")
        options = (f"upperdir={layer}/upper", f"workdir={layer}/work")
    directories = [_directory(option) for option in storage.driver_options]

    def make() -> None:
        for directory in directories:
            Path(directory).mkdir(parents=True, exist_ok=True)
        if layer is not None:
            (layer / "upper").mkdir(parents=True)
            (layer / "work").mkdir()
            storage.fstype = "overlay"
        try:
            mount(storage, extra=options, without=(_WRITABLE,))
        except BaseException:
            _remove(layer)
            raise

    def undo() -> None:
        unmount(storage.mount_point)
        _remove(layer)

    async def cleanup() -> None:
        await asyncio.to_thread(undo)

    await asyncio.to_thread(make)
    return cleanup


def _directory(option: str) -> str:
    name, _, value = option.partition("=")
    if name != _CREATE_DIRECTORY or not value:
        raise InvalidArgument(f"driver option {option!r} of overlayfs is not supported")
    return value


def _remove(layer: Path | None) -> None:
    if layer is None:
        return
    try:
        shutil.rmtree(layer)
        layer.parent.rmdir()
    except OSError as error:  # the container has another, or uses this one still
        if os.path.lexists(layer):
            _LOG.warning("the layer %s stays: %s", layer, error)
