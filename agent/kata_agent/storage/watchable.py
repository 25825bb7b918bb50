"""Volumes that programs watch by inotify: copied into memory, and kept up to date.

A change on the host gives no inotify event on virtio-fs, nor on any other way there is to share files. So the agent
looks every two seconds and repeats the change in a copy, where it does give one. What Kubernetes swaps at once,
by renaming the link `..data`, is swapped at once in the copy.
Source: kata-containers' `docs/design/inotify.md` and `src/agent/src/watcher.rs` for places, limits and pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_agent import linux
from kata_agent.errors import InvalidArgument
from kata_agent.storage.mounting import unmount

if TYPE_CHECKING:
    from kata_agent.storage.context import Cleanup
    from kata_protos.agent_pb2 import Storage

_LOG = logging.getLogger(__name__)

PACE = 2.0  # seconds between looks
ENTRIES_MAX = 16
SIZE_MAX = 1 << 20  # bytes

_TOP = "watchable"  # the directory that is covered by memory
_DATA = "..data"  # the link that Kubernetes swaps


class _Node(NamedTuple):
    """What is at a path, as far as a change of it is seen."""

    kind: int
    mode: int
    owner: tuple[int, int]
    size: int
    changed: int  # nanoseconds
    inode: int
    target: str  # of a link


Snapshot = dict[str, _Node]  # by path below the source; "" is the source itself


async def follow(storage: Storage) -> Cleanup:
    """Copy the source to the mount point and keep the copy up to date; a large one is bind-mounted instead.

    Raises:
        InvalidArgument: The mount point is not below a directory `watchable`.
        OSError: There is no such source, or the copy cannot be made.
    """
    copy = Copy(Path(storage.source), Path(storage.mount_point))
    if await asyncio.to_thread(copy.begin):
        following = asyncio.create_task(copy.follow(), name=f"watch {storage.source}")

        async def stop() -> None:
            following.cancel()
            await asyncio.wait([following])
            await asyncio.to_thread(copy.remove)

        return stop

    async def unbind() -> None:
        await asyncio.to_thread(unmount, storage.mount_point)

    return unbind


class Copy:
    """A copy of a file or a directory.

    Args:
        source: What is copied.
        target: Where to: below a directory `watchable`, which is covered by memory.

    Raises:
        InvalidArgument: The target is elsewhere.
    """

    def __init__(self, source: Path, target: Path) -> None:
        if _TOP not in target.parts[:-1]:
            raise InvalidArgument(f"watchable-bind: {target} is not below a directory {_TOP}")
        self._source = source
        self._target = target
        self._top = Path(*target.parts[: target.parts.index(_TOP) + 1])
        self._staging = self._top / f".{target.name}"  # of the same file system, for renaming; nobody looks there
        self._known: Snapshot = {}

    def begin(self) -> bool:
        """Make the copy; where it would be too large, mount the source itself and return False.

        Raises:
            OSError: It cannot be made.
        """
        snapshot = take(self._source)
        self._top.mkdir(parents=True, exist_ok=True)
        if not linux.is_mount_point(str(self._top)):
            linux.mount("tmpfs", str(self._top), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if _entries(snapshot) > ENTRIES_MAX or sum(node.size for node in snapshot.values()) > SIZE_MAX:
            _LOG.info("%s is too large to be watched: it is bind-mounted", self._source)
            if stat.S_ISDIR(snapshot[""].kind):
                self._target.mkdir(exist_ok=True)
            else:
                self._target.touch(exist_ok=True)
            linux.mount(str(self._source), str(self._target), flags=linux.MS_BIND)
            return False
        try:
            self._apply(snapshot)
        except BaseException:
            self.remove()
            raise
        return True

    async def follow(self) -> None:
        """Repeat every change, until cancelled."""
        failing = ""
        while True:
            await asyncio.sleep(PACE)
            try:
                await asyncio.to_thread(self.update)
                failing = ""
            except OSError as error:  # in the midst of a change there, or no room here: the next look tells
                if str(error) != failing:
                    failing = str(error)
                    _LOG.warning("the copy of %s is not up to date: %s", self._source, error)

    def update(self) -> None:
        """Repeat what has changed since.

        Raises:
            OSError: The source changes meanwhile, or there is no room; the next call goes on.
        """
        snapshot = take(self._source)
        if snapshot != self._known:
            self._apply(snapshot)

    def remove(self) -> None:
        """Remove the copy."""
        for path in (self._staging, self._target):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _apply(self, snapshot: Snapshot) -> None:
        """Bring the copy to a state: first what is new, then the links to it, then what is gone."""
        known, self._known = self._known, {}  # a failure leaves us not knowing, and all is copied again
        changed = {path: node for path, node in snapshot.items() if known.get(path) != node}
        for path, node in changed.items():
            if stat.S_ISDIR(node.kind):
                self._make_directory(self._target / path, node)
            elif stat.S_ISREG(node.kind):
                self._copy_file(self._source / path, self._target / path, node)
        links = [path for path, node in changed.items() if stat.S_ISLNK(node.kind)]
        for path in sorted(links, key=lambda path: Path(path).name != _DATA):
            self._link(self._target / path, snapshot[path])
        copied = take(self._target)
        gone = [path for path in copied if path not in snapshot]
        for path in sorted(gone, key=lambda path: (stat.S_ISDIR(copied[path].kind), path)):
            _remove(self._target / path)
        self._known = snapshot

    def _make_directory(self, target: Path, node: _Node) -> None:
        if target.is_symlink() or not target.is_dir():
            _remove(target)
            target.mkdir()
        os.chown(target, *node.owner)
        target.chmod(node.mode)

    def _copy_file(self, source: Path, target: Path, node: _Node) -> None:
        if target == self._target:  # alone, it is itself what containers have mounted: it must stay that file
            shutil.copyfile(source, target)
            os.chown(target, *node.owner)
            target.chmod(node.mode)
            return
        _remove(self._staging)
        shutil.copyfile(source, self._staging)
        os.chown(self._staging, *node.owner)
        self._staging.chmod(node.mode)
        self._replace(target)

    def _link(self, target: Path, node: _Node) -> None:
        _remove(self._staging)
        self._staging.symlink_to(node.target)
        self._replace(target)

    def _replace(self, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            _remove(target)
        self._staging.replace(target)


def _entries(snapshot: Snapshot) -> int:
    """How many files and links there are; Kubernetes has one of each for a key."""
    return sum(not stat.S_ISDIR(node.kind) and Path(path).name != _DATA for path, node in snapshot.items())


def take(source: Path) -> Snapshot:
    """What is in a directory, or the file alone.

    Raises:
        OSError: It cannot be read, or changes meanwhile.
    """
    snapshot: Snapshot = {"": _node(source, follow=True)}
    if stat.S_ISDIR(snapshot[""].kind):
        _collect(source, "", snapshot)
    return snapshot


def _collect(directory: Path, prefix: str, snapshot: Snapshot) -> None:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        snapshot[path] = _node(Path(entry.path))
        if entry.is_dir(follow_symlinks=False):
            _collect(Path(entry.path), f"{path}/", snapshot)


def _node(path: Path, *, follow: bool = False) -> _Node:
    found = path.stat() if follow else path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    is_directory = stat.S_ISDIR(kind)
    return _Node(
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        owner=(found.st_uid, found.st_gid),
        size=0 if is_directory else found.st_size,
        changed=0 if is_directory else found.st_mtime_ns,
        inode=found.st_ino,
        target=str(path.readlink()) if stat.S_ISLNK(kind) else "",
    )


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
