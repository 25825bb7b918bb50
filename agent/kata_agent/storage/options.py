"""Mount options in words, as fstab has them, to flags and data of mount(2)."""

from __future__ import annotations

from collections.abc import Iterable

from kata_agent import linux

_SET = {
    "bind": linux.MS_BIND,
    "rbind": linux.MS_BIND | linux.MS_REC,
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "sync": linux.MS_SYNCHRONOUS,
    "dirsync": linux.MS_DIRSYNC,
    "mand": linux.MS_MANDLOCK,
    "remount": linux.MS_REMOUNT,
    "noatime": linux.MS_NOATIME,
    "nodiratime": linux.MS_NODIRATIME,
    "relatime": linux.MS_RELATIME,
    "strictatime": linux.MS_STRICTATIME,
    "lazytime": linux.MS_LAZYTIME,
}
_CLEAR = {
    "rw": linux.MS_RDONLY,
    "suid": linux.MS_NOSUID,
    "dev": linux.MS_NODEV,
    "exec": linux.MS_NOEXEC,
    "async": linux.MS_SYNCHRONOUS,
    "nomand": linux.MS_MANDLOCK,
    "atime": linux.MS_NOATIME,
    "diratime": linux.MS_NODIRATIME,
    "norelatime": linux.MS_RELATIME,
    "nostrictatime": linux.MS_STRICTATIME,
    "nolazytime": linux.MS_LAZYTIME,
    "defaults": 0,
}
_PROPAGATION = {
    "shared": linux.MS_SHARED,
    "rshared": linux.MS_SHARED | linux.MS_REC,
    "slave": linux.MS_SLAVE,
    "rslave": linux.MS_SLAVE | linux.MS_REC,
    "private": linux.MS_PRIVATE,
    "rprivate": linux.MS_PRIVATE | linux.MS_REC,
    "unbindable": linux.MS_UNBINDABLE,
    "runbindable": linux.MS_UNBINDABLE | linux.MS_REC,
}


def parse(options: Iterable[str]) -> tuple[int, int, str]:
    """Flags, propagation flags for a second call, and what is left for the file system, joined by commas."""
    flags = propagation = 0
    data = []
    for option in options:
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        elif option:
            data.append(option)
    return flags, propagation, ",".join(data)
