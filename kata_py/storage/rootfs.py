"""The mounts that make a container's root file system, as the manager's snapshotter describes them.

Source: containerd `core/mount/mount_linux.go` and `api/types/mount.proto`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource import mount
from kata_py.storage.errors import StorageError, UnsupportedMount

_DATA_MAX = 4095  # bytes: mount(2) takes one page, and the last byte is the end

_FLAGS = {
    "ro": mount.MS_RDONLY, "nosuid": mount.MS_NOSUID, "nodev": mount.MS_NODEV, "noexec": mount.MS_NOEXEC,
    "bind": mount.MS_BIND, "rbind": mount.MS_BIND | mount.MS_REC,
    "sync": 16, "mand": 64, "dirsync": 128, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21,
    "strictatime": 1 << 24,
}  # fmt: skip
_DEFAULTS = frozenset({"rw", "suid", "dev", "exec", "async", "nomand", "atime", "diratime", "defaults"})


@dataclass(frozen=True, slots=True)
class RootfsMount:
    """One mount; several are stacked in their order.

    Attributes:
        type: The file system's type: `overlay`, `bind`, `ext4` ...
        source: What is mounted.
        options: As for mount(8).
    """

    type: str
    source: str
    options: tuple[str, ...] = ()

    def perform(self, target: Path) -> None:
        """Mount it on the directory.

        Raises:
            UnsupportedMount: A file system of the snapshotter's own, or an option that is for the runtime.
            StorageError: The kernel refused.
        """
        if self.type.startswith("fuse.") or any(o.startswith("io.katacontainers.") for o in self.options):
            raise UnsupportedMount(
                f"rootfs of type {self.type!r} with options {','.join(self.options):.200}: only a snapshotter's"
                " io.katacontainers.volume of type image_guest_pull is supported"
            )
        flags, data = _parsed(self.options)
        fstype = "" if flags & mount.MS_BIND else self.type
        try:
            with _fitting(data) as fitting:
                mount.mount(self.source, str(target), fstype, flags, ",".join(fitting))
            if flags & mount.MS_BIND and flags & ~(mount.MS_BIND | mount.MS_REC):
                mount.mount("", str(target), "", (flags & ~mount.MS_REC) | mount.MS_REMOUNT)
        except OSError as error:
            options = ",".join(data)
            raise StorageError(
                f"cannot mount {self.type} {self.source} on {target}: {error.strerror} (options: {options:.200})"
            ) from error


def _parsed(options: tuple[str, ...]) -> tuple[int, list[str]]:
    flags = 0
    data = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option not in _DEFAULTS:
            data.append(option)
    return flags, data


@contextlib.contextmanager
def _fitting(data: list[str]) -> Iterator[list[str]]:
    """The options short enough for the kernel: an overlay of many layers names them through one descriptor."""
    if len(",".join(data).encode()) <= _DATA_MAX:
        yield data
        return
    paths = [path for option in data for path in _layers(option)]
    common = os.path.commonpath(paths) if paths else "/"
    if common == "/":
        yield data
        return
    directory = os.open(common, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield [option.replace(common, f"/proc/self/fd/{directory}") if _layers(option) else option for option in data]
    finally:
        os.close(directory)


def _layers(option: str) -> list[str]:
    name, _, value = option.partition("=")
    return value.split(":") if name in ("lowerdir", "upperdir", "workdir") else []
