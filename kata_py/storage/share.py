"""The directory that a sandbox shares with its guest: containers' root file systems and volumes.

Layout (kata `virtcontainers/fs_share_linux.go`), below `/run/kata-containers/shared/sandboxes/<sandbox>`:

    mounts/                                    what the shim mounts into, at any time
    mounts/<container>/rootfs                  a container's root file system
    mounts/<container>-<16 hex>-<basename>     a volume
    mounts/pod-<16 hex>-<basename>             a volume in which containers see each other's mounts, once for all
    mounts/sandbox-mounts/<name>               a file or directory of `sandbox_bind_mounts`
    shared/                                    read-only slave of mounts/: what virtiofsd shares
    private/                                   where a bind is made, and made read-only, before it appears

`mounts` is a shared mount of its own and `shared` its slave, so that what is mounted later appears to
virtiofsd too, which lives in a mount namespace of its own, whatever the propagation of the host's `/run`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource import mount
from kata_py.resource.blocking import off_loop as off_loop
from kata_py.resource.journal import Journal, undone
from kata_py.resource.mntns import MountNamespace
from kata_py.resource.undo import RemoveTree, Unmount
from kata_py.storage.errors import StorageError
from kata_py.storage.rootfs import RootfsMount

logger = logging.getLogger(__name__)

ROOT = Path("/run/kata-containers/shared/sandboxes")
TAG = "kataShared"
GUEST_ROOT = "/run/kata-containers/shared/containers"
SANDBOX_MOUNTS = "sandbox-mounts"

# Options by which what is mounted elsewhere is to be seen: on the host, or in the pod's other containers. The way back
# ends at the machine's border.
PROPAGATION = frozenset({"slave", "rslave", "shared", "rshared"})


@dataclass(frozen=True, slots=True)
class Volume:
    """A file or directory of the host that a container sees.

    Attributes:
        source: Where it is on the host.
        name: Its name in the share, and so in the guest.
        read_only: Whether the guest is kept from changing it, by the host.
        recursive: Whether what is mounted below the source is seen, too.
        read_only_below: Whether that is kept from being changed, too.
        follows: Whether what is mounted there, or unmounted, later on is seen, too.
        lasts: Whether it is there once for all containers of the pod, and to its end.
    """

    source: Path
    name: str
    read_only: bool = False
    recursive: bool = False
    read_only_below: bool = False
    follows: bool = False
    lasts: bool = False

    @classmethod
    def for_container(cls, container_id: str, source: Path, destination: str, options: Collection[str] = ()) -> Volume:
        """The volume that a container mounts at the destination; its name tells people whose it is.

        Args:
            container_id: The container's id.
            source: Where it is on the host.
            destination: Where the container is to see it.
            options: The mount's, as the OCI spec has them.
        """
        digest = hashlib.sha256(f"{source}\0{destination}".encode()).hexdigest()[:16]
        base = destination.rstrip("/").rpartition("/")[2][:64]
        return cls(
            source,
            f"{container_id}-{digest}-{base}",
            read_only="ro" in options or "rro" in options,
            recursive="rbind" in options,
            read_only_below="rro" in options,
            follows=not PROPAGATION.isdisjoint(options),
        )

    @classmethod
    def for_pod(cls, source: Path, options: Collection[str] = ()) -> Volume:
        """The volume of all containers of a pod that mount the source and see what others mount in it.

        Args:
            source: Where it is on the host.
            options: The mount's, as the OCI spec has them.
        """
        recursive = "rbind" in options
        digest = hashlib.sha256(f"{source}\0{recursive}".encode()).hexdigest()[:16]
        return cls(source, f"pod-{digest}-{source.name[:64]}", recursive=recursive, follows=True, lasts=True)

    @classmethod
    def for_sandbox(cls, source: Path, *, read_only: bool) -> Volume:
        """The volume of a path that `sandbox_bind_mounts` names."""
        return cls(source, f"{SANDBOX_MOUNTS}/{source.name}", read_only=read_only)

    @property
    def guest_path(self) -> str:
        """Where the guest finds it."""
        return f"{GUEST_ROOT}/{self.name}"


def guest_rootfs(container_id: str) -> str:
    """Where the guest finds a container's root file system."""
    return f"{GUEST_ROOT}/{container_id}/rootfs"


def directory(sandbox_id: str, root: Path = ROOT) -> Path:
    """What virtiofsd shares for the sandbox."""
    return root / sandbox_id / "shared"


class Share:
    """One sandbox's shared directory; made by `open_share`."""

    def __init__(self, top: Path, journal: Journal, lasting: ExitStack, node: MountNamespace | None) -> None:
        self._mounts = top / "mounts"
        self._private = top / "private"
        self._journal = journal
        self._lasting = lasting
        self._node = node
        self._lasting_names: set[str] = set()
        self._lock = threading.Lock()  # containers are created at the same time

    @asynccontextmanager
    async def sandbox(self, volumes: Sequence[Volume]) -> AsyncIterator[None]:
        """Let files appear in the guest that are no container's; raises as `container`."""
        stack = ExitStack()
        try:
            await off_loop(self._add_all, stack, volumes)
            yield
        finally:
            await off_loop(stack.close)

    @asynccontextmanager
    async def container(
        self, container_id: str, rootfs: Sequence[RootfsMount] | Path | None, volumes: Sequence[Volume]
    ) -> AsyncIterator[None]:
        """Let a container's files appear in the guest; leaving takes them away.

        Args:
            container_id: Its id.
            rootfs: The mounts that make its root file system, or the directory where it lies; None if the guest
                mounts it, from a disk.
            volumes: Further files and directories.

        Raises:
            StorageError: A source is missing, or cannot be mounted; the message names it.
            OSError: Directories or the journal cannot be written.
        """
        stack = ExitStack()
        try:
            await off_loop(self._add, stack, container_id, rootfs, volumes)
            yield
        finally:
            await off_loop(stack.close)

    def _add(
        self,
        stack: ExitStack,
        container_id: str,
        rootfs: Sequence[RootfsMount] | Path | None,
        volumes: Sequence[Volume],
    ) -> None:
        target = self._mounts / container_id / "rootfs"
        for place in (target.parent, target):
            place.mkdir(mode=0o750)
            stack.callback(_forget, place)
        if isinstance(rootfs, Path):
            self._bind(stack, Volume(rootfs, ""), target)
        elif rootfs is not None:
            stack.enter_context(undone(self._journal, Unmount(str(target))))
            for layer in rootfs:
                layer.perform(target)
        self._add_all(stack, volumes)

    def _add_all(self, stack: ExitStack, volumes: Sequence[Volume]) -> None:
        for volume in volumes:
            target = self._mounts / volume.name
            target.parent.mkdir(mode=0o750, exist_ok=True)
            if not volume.lasts:
                self._bind(stack, volume, target)
                continue
            with self._lock:
                if volume.name not in self._lasting_names:
                    with ExitStack() as made:
                        self._bind(made, volume, target)
                        self._lasting.push(made.pop_all())
                    self._lasting_names.add(volume.name)

    def _bind(self, stack: ExitStack, volume: Volume, target: Path) -> None:
        # A read-only remount does not propagate to slaves, the flags of a new mount do: so a bind is finished
        # aside, private, and appears in the share as it is to stay.
        source, deep = volume.source, mount.MS_REC if volume.recursive else 0
        try:
            is_directory = stat.S_ISDIR((self._node.run(source.stat) if self._node else source.stat()).st_mode)
        except OSError as error:
            raise StorageError(f"cannot share {source} with the guest: {error.strerror}") from error
        aside = self._private / "-".join(target.relative_to(self._mounts).parts)
        for place in {aside, target}:
            place.mkdir(mode=0o750, exist_ok=True) if is_directory else place.touch()
        if volume.name:
            stack.callback(_forget, target)
        stack.enter_context(undone(self._journal, Unmount(str(target))))
        with ExitStack() as made_aside:
            made_aside.callback(_forget, aside)
            made_aside.enter_context(undone(self._journal, Unmount(str(aside))))
            try:
                self._mount(source, aside, recursive=volume.recursive)
                mount.mount("", str(aside), "", (mount.MS_SLAVE if volume.follows else mount.MS_PRIVATE) | deep)
                if volume.read_only_below:
                    mount.make_read_only(str(aside))
                elif volume.read_only:
                    mount.mount("", str(aside), "", mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY)
                mount.mount(str(aside), str(target), "", mount.MS_BIND | deep)
            except OSError as error:
                raise StorageError(f"cannot share {source} with the guest: {error.strerror}") from error

    def _mount(self, source: Path, place: Path, *, recursive: bool) -> None:
        """Mount at a place what the node has at the source."""
        if self._node is None:
            mount.mount(str(source), str(place), "", mount.MS_BIND | (mount.MS_REC if recursive else 0))
            return
        tree = self._node.run(mount.clone_tree, str(source), recursive=recursive)
        try:
            mount.attach_tree(tree, str(place))
        finally:
            os.close(tree)


def _forget(place: Path) -> None:
    """Remove a mount point, or the directory of some. What cannot be removed goes with the whole share."""
    try:
        if stat.S_ISDIR(place.lstat().st_mode):
            place.rmdir()
        else:
            place.unlink()
    except OSError as error:
        logger.warning("a place in the share stays for the sandbox's life: %s", error)


@asynccontextmanager
async def open_share(
    sandbox_id: str, journal: Journal, root: Path = ROOT, *, node: MountNamespace | None = None
) -> AsyncIterator[Share]:
    """Make a sandbox's shared directory; leaving removes it with all that is mounted in it.

    Args:
        sandbox_id: The sandbox's id, checked before.
        journal: Where the undo of each change is written first.
        root: Where the directories of all sandboxes lie.
        node: Where sources are found; without it in the namespace of this process.

    Raises:
        OSError: It cannot be made.
    """
    top = root / sandbox_id
    stack = ExitStack()
    try:
        await off_loop(_prepare, stack, top, journal)
        yield Share(top, journal, stack, node)
    finally:
        await off_loop(stack.close)


def _prepare(stack: ExitStack, top: Path, journal: Journal) -> None:
    stack.enter_context(undone(journal, RemoveTree(str(top))))
    mounts, shared = top / "mounts", top / "shared"
    mounts.mkdir(mode=0o750, parents=True)
    shared.mkdir(mode=0o700)
    (top / "private").mkdir(mode=0o700)
    stack.enter_context(undone(journal, Unmount(str(mounts))))
    mount.mount(str(mounts), str(mounts), "", mount.MS_BIND)
    mount.mount("", str(mounts), "", mount.MS_PRIVATE)
    mount.mount("", str(mounts), "", mount.MS_SHARED)
    stack.enter_context(undone(journal, Unmount(str(shared))))
    mount.mount(str(mounts), str(shared), "", mount.MS_BIND)
    mount.mount("", str(shared), "", mount.MS_SLAVE)
    mount.mount("", str(shared), "", mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY)
