"""Mounts and namespaces of the host: thin typed calls over the C library.

Names and values are the kernel's (`include/uapi/linux/mount.h`, `sched.h`). All raise OSError with the path.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

_AT_FDCWD = -100  # include/uapi/linux/fcntl.h
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4

# System calls that glibc has names for since 2.36 only; the numbers are those of all architectures.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), os.fsencode(data)
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2): move this process into new namespaces."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int, path: str) -> None:
    """setns(2): move this thread into an open namespace of the kind; the path is for the error."""
    _check(_libc.setns(descriptor, kind), path)


def clone_tree(path: str, *, recursive: bool = False) -> int:
    """open_tree(2): a copy of the mount at the path, and perhaps of those below, as an open file; mounted nowhere yet.

    Unlike a bind it can be made in one namespace and mounted in another. The kernel has it since 5.2.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    descriptor: int = _libc.syscall(ctypes.c_long(_SYS_OPEN_TREE), _AT_FDCWD, os.fsencode(path), flags)
    _check(0 if descriptor >= 0 else descriptor, path)
    return descriptor


def attach_tree(descriptor: int, target: str) -> None:
    """move_mount(2): mount at a path what `clone_tree` has copied."""
    empty, flags = b"", _MOVE_MOUNT_F_EMPTY_PATH
    number = ctypes.c_long(_SYS_MOVE_MOUNT)
    _check(_libc.syscall(number, descriptor, empty, _AT_FDCWD, os.fsencode(target), flags), target)


def detach(target: str) -> None:
    """Lazily unmount everything stacked at the path; nothing mounted, or no such path, is fine."""
    while True:
        try:
            unmount(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def mount_points() -> list[str]:
    """The mount points that this process sees, in mount order. Source: proc(5), `/proc/self/mountinfo`."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 pathlib would cost an import on the delete path
        return [_unescape(line.split(" ", 5)[4]) for line in file]


def fstype_at(path: str) -> str:
    """The type of the file system mounted last exactly at the path, as this thread sees it; empty if none is."""
    wanted, found = os.path.realpath(path), ""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 as above
        for line in file:
            if _unescape(line.split(" ", 5)[4]) == wanted:
                found = line.partition(" - ")[2].split(" ", 1)[0]
    return found


def make_read_only(path: str) -> None:
    """mount_setattr(2): let nothing be written through the mount at the path, nor through any mount below it."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    number, size = ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_size_t(len(attributes))
    _check(_libc.syscall(number, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, size), path)


def detach_below(path: str) -> None:
    """Detach every mount at or below the path, the last made first."""
    parent, name = os.path.split(path)
    top = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118 a link in the path's own place is not followed
    for point in reversed(mount_points()):
        if point == top or point.startswith(top + "/"):
            detach(point)


def mount_id(descriptor: int) -> int:
    """The id of the mount that an open file lies on. Source: proc(5), `/proc/pid/fdinfo`."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:  # noqa: PTH123 as above
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id:"))


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
