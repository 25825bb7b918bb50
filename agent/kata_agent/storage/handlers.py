"""One function per storage driver: each makes what a `Storage` asks for at its mount point.

They block: the table calls them off the event loop. Each returns whether it mounted something there.
Source: kata-containers' `src/agent/src/storage/`, a file per driver.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.errors import InvalidArgument, Unimplemented
from kata_agent.storage import options as mount_options

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage

_SETGID = 0o2000


def virtio_fs(storage: Storage) -> bool:
    """A file system shared by the host, by its tag; left alone where one is mounted already.

    A machine without virtio-fs, such as a set of namespaces, has the share mounted from the beginning.
    """
    if linux.is_mount_point(storage.mount_point):
        return False
    return mount(storage)


def bind(storage: Storage) -> bool:
    """Another place of the guest."""
    return mount(storage, extra=("bind",))


def ephemeral(storage: Storage) -> bool:
    """Memory, for as long as the sandbox lives; `fsgid=N` gives it to a group."""
    if storage.fstype == "hugetlbfs":
        raise Unimplemented("ephemeral storage of huge pages is not supported")
    group = _number(storage, "fsgid", 10)
    mounted = mount(storage, without=("fsgid",))
    if group is not None:
        os.chown(storage.mount_point, -1, group)
        os.chmod(storage.mount_point, os.stat(storage.mount_point).st_mode | _SETGID)  # noqa: PTH101, PTH116 as above
    return mounted


def local(storage: Storage) -> bool:
    """A directory of the guest, with `mode=OCTAL` and `fsgid=N`."""
    directory = Path(storage.mount_point)
    directory.mkdir(parents=True, exist_ok=True)
    group, mode = _number(storage, "fsgid", 10), _number(storage, "mode", 8)
    if group is not None:
        os.chown(directory, -1, group)
    if mode is None:
        mode = directory.stat().st_mode & 0o7777
    directory.chmod(mode | (_SETGID if group is not None else 0))
    return False


HANDLERS: dict[str, Callable[[Storage], bool]] = {
    "virtio-fs": virtio_fs,
    "bind": bind,
    "ephemeral": ephemeral,
    "local": local,
}


def mount(storage: Storage, *, extra: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> bool:
    """Make the mount point, a file for a file and a directory for the rest, and mount.

    Raises:
        OSError: The kernel refuses.
    """
    options = [option for option in (*storage.options, *extra) if option.partition("=")[0] not in without]
    flags, propagation, data = mount_options.parse(options)
    target = Path(storage.mount_point)
    if flags & linux.MS_BIND and Path(storage.source).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o644)
    else:
        target.mkdir(parents=True, exist_ok=True)
    linux.mount(storage.source, str(target), storage.fstype, flags, data)
    if flags & linux.MS_BIND and flags & ~(linux.MS_BIND | linux.MS_REC):
        linux.mount("", str(target), flags=flags | linux.MS_REMOUNT)  # a bind takes its flags only when remounted
    if propagation:
        linux.mount("", str(target), flags=propagation)
    return True


def _number(storage: Storage, name: str, base: int) -> int | None:
    for option in storage.options:
        key, _, value = option.partition("=")
        if key == name:
            try:
                return int(value, base)
            except ValueError:
                raise InvalidArgument(f"storage {storage.mount_point}: {option} is no number") from None
    return None
