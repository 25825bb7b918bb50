"""The images of a pod: each layer is fetched and unpacked once, and lies there until the machine ends.

Below `/run/kata-containers/image`, where a guest with a disk for it has that mounted:

    blobs/sha256/<digest>   what registries gave; of a layer that is unpacked nothing but its length
    layers/<n>              an unpacked layer
    containers/<id>/        what a container writes, and its overlay's scratch
    pulls/                  what is needed while an image is pulled

A layer is known by the layers that it lies upon and itself, as directories that it only passes through are as below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kata_agent.image import layer
from kata_agent.image.errors import DiskFull, PullError
from kata_agent.image.reference import pullable
from kata_agent.image.registry import Registries, Settings

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper

_LOG = logging.getLogger(__name__)

ROOT = Path("/run/kata-containers/image")

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # others are called alike by kernel and OCI
_MARGIN = 2.0  # seconds before the caller's deadline at which it is told why
_MIB = 1 << 20


class _Descriptor(NamedTuple):
    """A layer as its image's manifest has it."""

    digest: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose layers are there.

    Attributes:
        layers: Their directories, the lowest first.
    """

    layers: tuple[Path, ...]


class ImageStore:
    """All images of the guest. One is pulled at a time: who comes meanwhile waits, and finds what they share.

    Args:
        reaper: Starts programs.
        settings: What is told about registries.
        root: Where everything lies.
        machine: The machine's architecture, as the kernel calls it; empty asks it.
    """

    def __init__(self, reaper: Reaper, settings: Settings, root: Path = ROOT, machine: str = "") -> None:
        self.root = root
        self._reaper = reaper
        self._stall = settings.stall
        machine = machine or os.uname().machine
        self._registries = Registries(reaper, settings, _ARCHITECTURES.get(machine, machine), root / "pulls")
        self._turn = asyncio.Lock()
        self._known: dict[str, Path] = {}  # layers by what they lie upon and themselves
        self._pulled: dict[str, tuple[Image, float]] = {}  # by reference, with the time
        self._hollow: set[Path] = set()  # blobs of which nothing but the length is left
        self._uses: Counter[Path] = Counter()
        self._serial = itertools.count(1)

    async def pull(self, reference: str, deadline: float | None = None) -> Image:
        """Have an image's layers there; it is in use until `release`.

        Args:
            reference: The image.
            deadline: When the caller stops waiting, in the event loop's time; None is never.

        Raises:
            InvalidArgument: That is no image's name.
            PullError: Registry, network, image or disk do not allow it, or the deadline is near; nothing but whole
                layers is left.
        """
        loop = asyncio.get_running_loop()
        name, asked = pullable(reference), loop.time()
        before = await asyncio.to_thread(self._size)
        if deadline is not None:
            deadline -= min(_MARGIN, max(0.0, deadline - asked) / 10)
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                image, when = self._pulled.get(name, (None, 0.0))
                if image is None or when < asked:
                    image = await self._pull(name)
                    self._pulled[name] = (image, loop.time())
                self._uses.update(image.layers)
        except TimeoutError:
            come = await asyncio.to_thread(self._size) - before
            raise PullError(
                f"image {reference}: it was not there after {loop.time() - asked:.0f} s, and the host does not wait"
                f" longer; {come // _MIB} MiB of whole layers have come and stay: raise create_container_timeout"
            ) from None
        _LOG.info("image %s is there after %.1f s", reference, loop.time() - asked)
        return image

    def release(self, image: Image) -> None:
        """A container does not use it any more; it stays while there is room."""
        self._uses.subtract(image.layers)

    async def _pull(self, reference: str) -> Image:
        while True:
            try:
                return await self._pull_once(reference)
            except DiskFull as error:
                if not await asyncio.to_thread(self._make_room):
                    raise self._full(reference) from error
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not await asyncio.to_thread(self._make_room):
                    raise self._full(reference) from error

    async def _pull_once(self, reference: str) -> Image:
        layout = self.root / "pulls" / str(next(self._serial))
        blobs = self.root / "blobs"
        for place in (layout, blobs):
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
        try:
            await self._registries.check(reference)
            await self._registries.copy(reference, layout, blobs, self._size)
            descriptors = await asyncio.to_thread(self._manifest, reference, layout)
            if await asyncio.to_thread(self._fetch_again, descriptors):
                await self._registries.copy(reference, layout, blobs, self._size)
            return Image(await self._unpacked(reference, descriptors))
        finally:
            await asyncio.to_thread(shutil.rmtree, layout, ignore_errors=True)

    def _manifest(self, reference: str, layout: Path) -> list[_Descriptor]:
        """The layers of the image in a layout, the lowest first."""
        try:
            [entry] = json.loads((layout / "index.json").read_bytes())["manifests"]
            manifest = self._document(entry)
            self._registries.check_platform(reference, self._document(manifest["config"]))
            return [_Descriptor(each["digest"], each["mediaType"]) for each in manifest["layers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise PullError(f"image {reference}: its manifest is of an unknown form: {error!r}") from error

    def _document(self, descriptor: dict[str, str]) -> Any:
        return json.loads(self._blob(descriptor["digest"]).read_bytes())

    def _blob(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if not algorithm.isalnum() or not value.isalnum():
            raise ValueError(f"{digest!r} is no digest")
        return self.root / "blobs" / algorithm / value

    async def _unpacked(self, reference: str, descriptors: list[_Descriptor]) -> tuple[Path, ...]:
        layers: list[Path] = []
        for key, descriptor in _chain(descriptors):
            blob = self._blob(descriptor.digest)
            if key not in self._known:
                directory = self.root / "layers" / str(next(self._serial))
                try:
                    await layer.unpack(
                        self._reaper, blob, descriptor.media_type, directory, layers[::-1], stall=self._stall
                    )
                except BaseException as error:
                    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
                    if isinstance(error, PullError) and not isinstance(error, DiskFull):
                        raise type(error)(f"image {reference}: {error}") from error
                    raise
                self._known[key] = directory
            await asyncio.to_thread(self._empty, blob)
            layers.append(self._known[key])
        return tuple(layers)

    def _fetch_again(self, descriptors: list[_Descriptor]) -> bool:
        """Whether a layer must be fetched that was unpacked upon other ones; what is left of it is removed."""
        wanted = {self._blob(descriptor.digest) for key, descriptor in _chain(descriptors) if key not in self._known}
        missing = wanted & self._hollow
        for blob in missing:
            blob.unlink(missing_ok=True)
        self._hollow -= missing
        return bool(missing)

    def _empty(self, blob: Path) -> None:
        """Leave a blob's length alone, by which skopeo knows that it need not fetch it."""
        if blob in self._hollow:
            return
        empty = blob.with_name(f"{blob.name}.hollow")
        with empty.open("wb") as file:
            file.truncate(blob.stat().st_size)
        empty.replace(blob)
        self._hollow.add(blob)

    def _make_room(self) -> bool:
        """Remove what no container uses and what is not unpacked; whether there was a layer among it."""
        unused = {key: place for key, place in self._known.items() if not self._uses[place]}
        for key, place in unused.items():
            del self._known[key]
            shutil.rmtree(place, ignore_errors=True)
        self._pulled = {
            name: each for name, each in self._pulled.items() if not set(each[0].layers) & {*unused.values()}
        }
        shutil.rmtree(self.root / "blobs", ignore_errors=True)
        self._hollow.clear()
        return bool(unused)

    def _full(self, reference: str) -> DiskFull:
        room = os.statvfs(self.root)
        free, size = (blocks * room.f_frsize // _MIB for blocks in (room.f_bavail, room.f_blocks))
        return DiskFull(
            f"image {reference}: there is no room for it in the guest: {self.root} has {free} MiB free of {size} MiB;"
            " give the pod more memory, or the guest a disk that is mounted there"
        )

    def _size(self) -> int:
        """Bytes that have come of images, whether they are here still or unpacked already."""
        size = 0
        for top in (self.root / "blobs", self.root / "pulls"):
            for directory, _, files in os.walk(top):
                for name in files:
                    with contextlib.suppress(FileNotFoundError):
                        size += os.stat(os.path.join(directory, name)).st_size  # noqa: PTH116, PTH118 many
        return size


def _chain(descriptors: list[_Descriptor]) -> list[tuple[str, _Descriptor]]:
    """Each layer with the key under which it is known."""
    key = ""
    chain = []
    for descriptor in descriptors:
        key = hashlib.sha256(f"{key} {descriptor.digest}".encode()).hexdigest()
        chain.append((key, descriptor))
    return chain
