"""The images of a pod: each layer is fetched and unpacked once, and lies there until the machine ends.

Below `/run/kata-containers/image`, where a guest with a disk for it has that mounted:

    blobs/sha256/<digest>   what registries gave; of a layer that is unpacked nothing but its length
    layers/<n>              an unpacked layer
    containers/<id>/        what a container writes, and its overlay's scratch
    pulls/                  what is needed while an image is pulled

A layer is known by the layers that it lies upon and itself, as directories that it only passes through are as below it.

A pull goes on as long as it gets on, whoever waits for it: an image that takes longer than a host waits is there when
the host asks again.
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
from collections.abc import Callable
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
_AT_ONCE = 2  # pulls that have begun
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


class _Pull:
    """A pull under way, in a task of its own.

    Args:
        key: Reference, and what is known of registries.
        turn: What those that are waited for take one after another.

    Attributes:
        task: Gives the image, which is in use by the pull itself until nobody waits for it.
        waiting: How many wait for it.
        begun: Whether it has a place among those that have begun.
        left: Whether it uses its image no more.
    """

    def __init__(self, key: tuple[str, str], turn: asyncio.Lock) -> None:
        self.key = key
        self.task: asyncio.Task[Image]
        self.waiting = 0
        self.begun = False
        self.left = False
        self._turn = turn
        self._has_turn = False

    async def take_turn(self) -> None:
        """Wait until no other one is waited for that came before."""
        await self._turn.acquire()
        self._has_turn = True

    def give_way(self) -> None:
        """Let the next one have its turn, if this is ours."""
        if self._has_turn:
            self._has_turn = False
            self._turn.release()


class ImageStore:
    """All images of the guest.

    Of those that are waited for one is pulled at a time: who comes meanwhile waits, and finds what they share. One that
    is not waited for any more goes on beside, if it has begun; two have begun at most.

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
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._writing = asyncio.Lock()  # whoever unpacks, or makes room
        self._cleared = 0  # how often blobs were removed
        self._pulls: dict[tuple[str, str], _Pull] = {}  # that can be joined
        self._tasks: set[asyncio.Task[Image]] = set()  # of all pulls, and of those that end
        self._known: dict[str, Path] = {}  # layers by what they lie upon and themselves
        self._hollow: set[Path] = set()  # blobs of which nothing but the length is left
        self._uses: Counter[Path] = Counter()
        self._serial = itertools.count(1)

    async def pull(self, reference: str, deadline: float | None = None) -> Image:
        """Have an image's layers there; it is in use until `release`.

        A pull of the same image that is under way, with the same credentials, is joined.

        Args:
            reference: The image.
            deadline: When the caller stops waiting, in the event loop's time; None is never. The pull goes on.

        Raises:
            InvalidArgument: That is no image's name.
            PullError: Registry, network, image or disk do not allow it, or the deadline is near; nothing but whole
                layers is left of a pull that has failed.
        """
        loop = asyncio.get_running_loop()
        name, asked = pullable(reference), loop.time()
        before = await asyncio.to_thread(self._size)
        if deadline is not None:
            deadline -= min(_MARGIN, max(0.0, deadline - asked) / 10)
        pull = self._join(name, await asyncio.to_thread(self._registries.told))
        pull.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                image = await asyncio.shield(pull.task)
            self._uses.update(image.layers)
        except TimeoutError:
            come = await asyncio.to_thread(self._size) - before
            then = "its pull goes on for who asks next" if pull.begun else "other images are pulled before it"
            raise PullError(
                f"image {reference}: it was not there after {loop.time() - asked:.0f} s, and the host does not wait"
                f" longer; {max(come, 0) // _MIB} MiB have come meanwhile, and {then}: raise create_container_timeout"
                " to have it at once"
            ) from None
        finally:
            pull.waiting -= 1
            if not pull.waiting:
                self._leave(pull)
        _LOG.info("image %s is there after %.1f s", reference, loop.time() - asked)
        return image

    def release(self, image: Image) -> None:
        """A container does not use it any more; it stays while there is room."""
        self._uses.subtract(image.layers)

    async def aclose(self) -> None:
        """End all pulls."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _join(self, name: str, told: str) -> _Pull:
        """The pull of that image by what is known of registries now; it is made if there is none."""
        key = name, told
        pull = self._pulls.get(key)
        if pull is None:
            for stale in list(self._pulls.values()):
                if stale.key[0] == name and not stale.waiting:
                    self._end(stale)  # who asks again will not ask for this one
            pull = self._pulls[key] = _Pull(key, self._turn)
            pull.task = asyncio.create_task(self._take(pull), name=f"pull of {name}")
            self._tasks.add(pull.task)
            pull.task.add_done_callback(lambda task: self._ended(pull))
        return pull

    def _leave(self, pull: _Pull) -> None:
        """Nobody waits for it now."""
        if pull.task.done():
            self._let_go(pull)
        elif pull.begun:
            _LOG.info("image %s: its pull goes on, which nobody waits for", pull.key[0])
            pull.give_way()
        else:
            self._end(pull)

    def _end(self, pull: _Pull) -> None:
        if self._pulls.get(pull.key) is pull:
            del self._pulls[pull.key]
        pull.task.cancel()

    def _ended(self, pull: _Pull) -> None:
        self._tasks.discard(pull.task)
        if self._pulls.get(pull.key) is pull:
            del self._pulls[pull.key]
        if pull.waiting or pull.task.cancelled():
            return  # who waits is told
        if error := pull.task.exception():
            _LOG.warning("image %s: its pull, which nobody waited for, has failed: %s", pull.key[0], error)
        else:
            _LOG.info("image %s is there, which nobody waited for", pull.key[0])
            self._let_go(pull)

    def _let_go(self, pull: _Pull) -> None:
        if not pull.left and not pull.task.cancelled() and pull.task.exception() is None:
            pull.left = True
            self.release(pull.task.result())

    async def _take(self, pull: _Pull) -> Image:
        try:
            await pull.take_turn()
            async with self._places:
                pull.begun = True
                return await self._pull(pull.key[0])
        finally:
            pull.give_way()

    async def _pull(self, reference: str) -> Image:
        while True:
            try:
                return await self._pull_once(reference)
            except DiskFull as error:
                if not await self._make_room():
                    raise self._full(reference) from error
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not await self._make_room():
                    raise self._full(reference) from error

    async def _pull_once(self, reference: str) -> Image:
        layout = self.root / "pulls" / str(next(self._serial))
        blobs = self.root / "blobs"
        for place in (layout, blobs):
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
        try:
            await self._registries.check(reference)
            while True:
                cleared = self._cleared
                await self._registries.copy(reference, layout, blobs, _growth(layout))
                async with self._writing:
                    if cleared != self._cleared:
                        continue  # what was there already may be gone
                    descriptors = await asyncio.to_thread(self._manifest, reference, layout)
                    if await asyncio.to_thread(self._fetch_again, descriptors):
                        continue
                    image = Image(await self._unpacked(reference, descriptors))
                    self._uses.update(image.layers)
                    return image
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

    async def _make_room(self) -> bool:
        """Remove what no container uses and what is not unpacked; whether there was a layer among it."""
        async with self._writing:
            self._cleared += 1
            return await asyncio.to_thread(self._clear)

    def _clear(self) -> bool:
        unused = {key: place for key, place in self._known.items() if not self._uses[place]}
        for key, place in unused.items():
            del self._known[key]
            shutil.rmtree(place, ignore_errors=True)
        for blob in (self.root / "blobs").glob("*/*"):  # the directories stay for who pulls beside
            blob.unlink(missing_ok=True)
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
        return _size(self.root / "blobs") + _size(self.root / "pulls")


def _size(top: Path) -> int:
    size = 0
    for directory, _, files in os.walk(top):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(directory, name)).st_size  # noqa: PTH116, PTH118 many
    return size


def _growth(layout: Path) -> Callable[[], int]:
    """How far a pull is, whatever other ones do: its layers lie in its layout until they are whole."""
    return lambda: _size(layout)


def _chain(descriptors: list[_Descriptor]) -> list[tuple[str, _Descriptor]]:
    """Each layer with the key under which it is known."""
    key = ""
    chain = []
    for descriptor in descriptors:
        key = hashlib.sha256(f"{key} {descriptor.digest}".encode()).hexdigest()
        chain.append((key, descriptor))
    return chain
