"""Volumes of a guest that shares no file system with the host: copied piece by piece, and kept up to date.

Directories, regular files and links are copied. What Kubernetes updates at once, by renaming the link `..data`, is
followed; anything else is as it was when the container was created.
Source: kata `virtcontainers/fs_share_linux.go`, `docs/Limitations.md`; kubelet `volume/util/atomic_writer.go`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kata_protos import agent_pb2
from kata_py.resource.blocking import off_loop
from kata_py.resource.inotify import watching
from kata_py.storage.errors import StorageError
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import Volume

logger = logging.getLogger(__name__)

PIECE = 1 << 20  # bytes sent at once, as upstream
SIZE_MAX = 128 << 20  # bytes of one volume: a copy lives in the guest's memory
ENTRIES_MAX = 10_000
SETTLE_TIME = 0.1  # seconds of silence after which an update is taken to be complete
REMOVED = -1  # the size of a file that is to be removed; an extension of our agent

_DIRECTORY_MODE = 0o750  # of directories that are made on the way
_DATA = "..data"  # the link that Kubernetes swaps

Send = Callable[[agent_pb2.CopyFileRequest], Awaitable[None]]


class Node(NamedTuple):
    """What is at a path, as far as a change of it is seen."""

    mode: int
    owner: tuple[int, int]
    size: int
    changed: int  # nanoseconds
    inode: int
    target: bytes  # of a link


Snapshot = dict[str, Node]  # by path below the source; "" is the source itself


class Copies:
    """What a sandbox's containers see of the host's files, by copies; stands in the place of `share.Share`.

    Args:
        send: Sends a piece to the agent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    @asynccontextmanager
    async def sandbox(self, volumes: Sequence[Volume]) -> AsyncIterator[None]:
        """As `Share.sandbox`."""
        async with AsyncExitStack() as stack:
            for volume in volumes:
                await stack.enter_async_context(self._copied(volume))
            yield

    @asynccontextmanager
    async def container(
        self, container_id: str, rootfs: Sequence[RootfsMount] | Path | None, volumes: Sequence[Volume]
    ) -> AsyncIterator[None]:
        """As `Share.container`; the copies leave the guest when the context ends.

        Raises:
            StorageError: The root file system is on the host; or a volume cannot be read, or is too large.
        """
        if rootfs is not None:
            raise StorageError(f"container {container_id}: without a share the guest cannot have its root file system")
        async with self.sandbox(volumes):
            yield

    @asynccontextmanager
    async def _copied(self, volume: Volume) -> AsyncIterator[None]:
        copy = Copy(volume.source, volume.guest_path, self._send)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(copy.remove)
            news = None
            try:
                if await off_loop(_is_swapped, volume.source):
                    news = await stack.enter_async_context(watching(volume.source))
                await copy.update()
            except OSError as error:
                raise StorageError(f"cannot copy {volume.source} into the guest: {error}") from error
            if news is not None:
                following = asyncio.create_task(copy.follow(news), name=f"copy of {volume.source}")
                stack.push_async_callback(_cancelled, following)
            yield


class Copy:
    """One volume's copy.

    Args:
        source: The host's file or directory.
        target: Where the guest has it.
        send: Sends a piece to the agent.
    """

    def __init__(self, source: Path, target: str, send: Send) -> None:
        self._source = source
        self._target = target
        self._send = send
        self._known: Snapshot = {}

    async def update(self) -> None:
        """Send what is new or has changed, then the links to it, and remove what is gone.

        Raises:
            StorageError: It is too large.
            OSError: It cannot be read, or changes meanwhile.
        """
        snapshot = await off_loop(take, self._source)
        known, self._known = self._known, {}  # a failure leaves us not knowing, and all is sent again
        changed = {path: node for path, node in snapshot.items() if known.get(path) != node}
        directories = [path for path, node in changed.items() if stat.S_ISDIR(node.mode)]
        for path in directories:
            await self._send_node(path, changed[path])
        for path, node in changed.items():
            if stat.S_ISREG(node.mode):
                await self._send_file(path, node)
        links = [path for path, node in changed.items() if stat.S_ISLNK(node.mode)]
        for path in sorted(links, key=lambda path: path != _DATA):
            await self._send_node(path, changed[path], changed[path].target)
        # The agent gives a directory the owner of what it last got in it.
        for path in directories:
            if any(Path(each).parent == Path(path) and changed[each].owner != changed[path].owner for each in changed):
                await self._send_node(path, changed[path])
        for path in known.keys() - snapshot.keys():
            if path.rpartition("/")[0] in snapshot:  # else it goes with its directory
                await self._remove(path)
        self._known = snapshot

    async def follow(self, news: asyncio.Event) -> None:
        """Repeat every change, until cancelled."""
        while True:
            await news.wait()
            with suppress(TimeoutError):
                while True:  # an update is a dozen changes in a row
                    news.clear()
                    async with asyncio.timeout(SETTLE_TIME):
                        await news.wait()
            try:
                await self.update()
            except FileNotFoundError as error:  # in the midst of a change, of which there is news yet; or at the end
                logger.info("the guest's copy of %s is not up to date: %s", self._source, error)
            except Exception as error:
                logger.warning("the guest's copy of %s is not up to date: %s", self._source, error)

    async def remove(self) -> None:
        """Remove it from the guest, as far as the guest still answers."""
        try:
            await self._remove("")
        except Exception as error:
            logger.info("the copy of %s stays in the guest: %s", self._source, error)

    async def _remove(self, path: str) -> None:
        request = self._request(path, Node(stat.S_IFREG, (0, 0), REMOVED, 0, 0, b""))
        await self._send(request)

    async def _send_node(self, path: str, node: Node, data: bytes = b"") -> None:
        request = self._request(path, node)
        request.data = data
        await self._send(request)

    async def _send_file(self, path: str, node: Node) -> None:
        file = await off_loop(os.open, self._source / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            offset = 0
            while True:
                request = self._request(path, node)
                request.offset = offset
                request.data = await off_loop(os.pread, file, min(PIECE, node.size - offset), offset)
                if not request.data and offset < node.size:
                    raise FileNotFoundError(f"{self._source / path} became shorter while it was copied")
                await self._send(request)
                offset += len(request.data)
                if offset >= node.size:
                    return
        finally:
            os.close(file)

    def _request(self, path: str, node: Node) -> agent_pb2.CopyFileRequest:
        return agent_pb2.CopyFileRequest(
            path=f"{self._target}/{path}" if path else self._target,
            file_size=node.size,
            file_mode=node.mode,
            dir_mode=_DIRECTORY_MODE,
            uid=node.owner[0],
            gid=node.owner[1],
        )


def take(source: Path) -> Snapshot:
    """What is in a directory, or the file alone; what is neither file, directory nor link is left out.

    Raises:
        StorageError: It is too large.
        OSError: It cannot be read, or changes meanwhile.
    """
    snapshot: Snapshot = {"": _node(source, follow=True)}
    if stat.S_ISDIR(snapshot[""].mode):
        _collect(source, "", snapshot)
    size = sum(node.size for node in snapshot.values())
    if size > SIZE_MAX:
        raise StorageError(
            f"{source} has {size} bytes, and at most {SIZE_MAX} are copied into a guest: it needs"
            ' shared_fs = "virtio-fs", or a disk'
        )
    return snapshot


def _collect(directory: Path, prefix: str, snapshot: Snapshot) -> None:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        node = _node(Path(entry.path))
        if stat.S_IFMT(node.mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            logger.warning("%s is not copied into the guest: it is neither file, directory nor link", entry.path)
            continue
        snapshot[path] = node
        if len(snapshot) > ENTRIES_MAX:
            raise StorageError(
                f"{directory} and what is beside it are more than {ENTRIES_MAX} files, too many to be copied into a"
                ' guest: they need shared_fs = "virtio-fs", or a disk'
            )
        if stat.S_ISDIR(node.mode):
            _collect(Path(entry.path), f"{path}/", snapshot)


def _node(path: Path, *, follow: bool = False) -> Node:
    found = path.stat() if follow else path.lstat()
    is_file = stat.S_ISREG(found.st_mode)
    return Node(
        mode=found.st_mode,
        owner=(found.st_uid, found.st_gid),
        size=found.st_size if is_file else 0,
        changed=found.st_mtime_ns if is_file else 0,
        inode=found.st_ino,
        target=os.fsencode(path.readlink()) if stat.S_ISLNK(found.st_mode) else b"",
    )


def _is_swapped(source: Path) -> bool:
    """Whether Kubernetes keeps the directory up to date by swapping a link."""
    return (source / _DATA).is_symlink()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
