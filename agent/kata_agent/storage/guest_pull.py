"""Root file systems of images that the guest pulls, or has itself: layers, and one on top that the container writes.

Source: kata-containers' agent, `storage/image_pull_handler.rs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.errors import InvalidArgument
from kata_agent.image import pause
from kata_agent.storage.mounting import unmount

if TYPE_CHECKING:
    from kata_agent.image.store import ImageStore
    from kata_agent.storage.context import Cleanup, Context, Workshop
    from kata_protos.agent_pb2 import Storage
    from kata_py.oci.spec import Spec

DRIVER = "image_guest_pull"
_TOLD = Path("/run/kata-containers/registries")  # what came with the pod's initdata


async def present(storage: Storage, context: Context) -> Cleanup:
    """Pull the image, unless it is the pod's pause, and mount it at the storage's mount point.

    Raises:
        InvalidArgument: It is not for a container, names no image, or lacks what the driver needs.
        PullError: The image cannot be had.
        AgentError: The guest has no pause bundle.
        OSError: The kernel refuses the mount.
    """
    if not context.container_id:
        raise InvalidArgument(f"storage {storage.mount_point}: {DRIVER} is for containers, not for the sandbox")
    metadata = metadata_of(storage)
    images = _images(context.workshop)
    mount_point, place = Path(storage.mount_point), images.root / "containers" / context.container_id
    with ExitStack() as undo:
        if pause.is_sandbox(metadata):
            layers: Sequence[Path] = (await asyncio.to_thread(pause.rootfs, context.workshop.pause_bundle),)
        else:
            image = await images.pull(storage.source, context.deadline)
            undo.callback(images.release, image)
            layers = image.layers
        await asyncio.to_thread(_mount, layers, place, mount_point)
        released = undo.pop_all()

    async def cleanup() -> None:
        with released:
            await asyncio.to_thread(_unmount, place, mount_point)

    return cleanup


def metadata_of(storage: Storage) -> Mapping[str, str]:
    """What the storage says of its image.

    Raises:
        InvalidArgument: It says nothing, or not in the form that is known.
    """
    option = next((each for each in storage.driver_options if each.startswith(f"{DRIVER}=")), None)
    if option is None:
        raise InvalidArgument(f"storage {storage.mount_point}: the driver option {DRIVER}=… is missing")
    try:
        metadata = json.loads(option.partition("=")[2])["metadata"]
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError("a value of metadata is no string")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f"storage {storage.mount_point}: the driver option {DRIVER} is garbled: {error!r}"
        ) from None
    result: Mapping[str, str] = metadata
    return result


def with_process(spec: Spec, storages: Sequence[Storage], workshop: Workshop) -> Spec:
    """The spec with the process of the guest's pause, if a storage is that; it blocks.

    Raises:
        InvalidArgument: As `metadata_of`, or the spec has no process.
        AgentError: As `pause.with_process`.
    """
    if not any(pause.is_sandbox(metadata_of(each)) for each in storages if each.driver == DRIVER):
        return spec
    if not spec.get("process"):
        raise InvalidArgument("the spec of the sandbox's container has no process")
    return pause.with_process(spec, workshop.pause_bundle)


def _images(workshop: Workshop) -> ImageStore:
    if workshop.images is None:
        from kata_agent.image import hub
        from kata_agent.image.registry import Settings
        from kata_agent.image.store import ImageStore

        environment = {**os.environ, **workshop.proxies} if workshop.proxies else None
        settings = hub.told(Settings(environment=environment), _TOLD)
        workshop.images = ImageStore(workshop.reaper, settings)
    return workshop.images


def _mount(layers: Sequence[Path], place: Path, mount_point: Path) -> None:
    upper, work, nothing = place / "upper", place / "work", place / "nothing"
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        for directory in (upper, work):
            directory.mkdir(parents=True)
        if not layers:  # overlayfs wants one
            nothing.mkdir()
            layers = (nothing,)
        top = os.stat(layers[-1])  # noqa: PTH116
        os.chown(upper, top.st_uid, top.st_gid)
        upper.chmod(top.st_mode & 0o7777)  # the root's own mode is that of the uppermost layer
        mount_point.mkdir(parents=True, exist_ok=True)
        undo.callback(_remove, mount_point)
        # Names relative to a descriptor: a mount's data is one page, and an image may have more than a hundred layers.
        parent = os.open(layers[0].parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        undo_descriptor = ExitStack()
        undo_descriptor.callback(os.close, parent)
        with undo_descriptor:
            lower = ":".join(f"/proc/self/fd/{parent}/{layer.name}" for layer in reversed(layers))
            data = f"lowerdir={lower},upperdir={upper},workdir={work}"
            linux.mount("overlay", str(mount_point), "overlay", data=data)
        undo.pop_all()


def _unmount(place: Path, mount_point: Path) -> None:
    unmount(str(mount_point))
    _remove(mount_point)
    shutil.rmtree(place, ignore_errors=True)


def _remove(mount_point: Path) -> None:
    """Remove the mount point, and the container's directory that it was made in."""
    with contextlib.suppress(OSError):  # gone already, or not ours alone
        mount_point.rmdir()
    with contextlib.suppress(OSError):
        mount_point.parent.rmdir()
