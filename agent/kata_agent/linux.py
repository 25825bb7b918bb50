"""System calls that Python's library lacks: the agent's one leaf to the kernel.

Names and numbers are the kernel's; each call is one typed function that raises OSError naming what it was
applied to. `ctypes` is imported when the first of them is needed: the boot path may get by without.
"""

# pathlib is an import that the boot would wait for.
# ruff: noqa: PTH123

from __future__ import annotations

import errno
import fcntl
import functools
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterable

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2  # include/linux/fs.h
UMOUNT_NOFOLLOW = 8

# include/uapi/linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000

# include/uapi/linux/openat2.h
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_SYS_OPENAT2 = 437  # the same on every architecture

# include/uapi/linux/capability.h: a capability's number is its place.
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

# include/uapi/linux/mount.h, fcntl.h, asm-generic/unistd.h: the same on all architectures
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_RB_POWER_OFF = 0x4321FEDC  # include/uapi/linux/reboot.h
_WALL = 0x40000000  # include/uapi/linux/wait.h: children of whatever kind of clone

# include/uapi/asm-generic/ioctls.h, the same on x86_64 and s390x
_TIOCSWINSZ = 0x5414
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431

# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# include/uapi/linux/random.h, the same on x86_64 and s390x
_RNDADDTOENTCNT = 0x40045201
_RNDRESEEDCRNG = 0x5207


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, subject: str) -> None:
    if result == -1:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    import ctypes

    result = _libc().mount(
        os.fsencode(source), os.fsencode(target), fstype.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc().umount2(os.fsencode(target), flags), target)


def detach(target: str) -> None:
    """Lazily unmount everything stacked at the path; nothing mounted there, or no such path, is fine."""
    while True:
        try:
            unmount(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly there, be it a directory of the same file system."""
    wanted = os.path.realpath(path)
    return any(mount.target == wanted for mount in mounts())


class Mount(NamedTuple):
    """A mount as the kernel tells of it.

    Attributes:
        target: Where.
        device: Major and minor number of the file system's device, as `MAJOR:MINOR`.
        fstype: The file system's type.
        source: What is mounted.
        writable: Whether the file system, not just this mount, can be written to.
    """

    target: str
    device: str
    fstype: str
    source: str
    writable: bool


def mounts() -> list[Mount]:
    """The mounts of our namespace, in the order of their making. Source: proc(5), `/proc/self/mountinfo`."""
    found = []
    with open("/proc/self/mountinfo", errors="surrogateescape") as lines:
        for line in lines:
            place, _, system = line.partition(" - ")
            _, _, device, _, target = place.split(" ", 5)[:5]
            fstype, source, options = system.split(" ")
            writable = "ro" not in options.strip().split(",")
            found.append(Mount(_unescaped(target), device, fstype, _unescaped(source), writable))
    return found


def mount_points(mountinfo: Iterable[str]) -> set[str]:
    """The places in the lines of a `/proc/pid/mountinfo`, as that process sees them. Source: proc(5)."""
    return {_unescaped(line.split(" ", 5)[4]) for line in mountinfo}


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def unshare(flags: int) -> None:
    """unshare(2): move the calling thread into new namespaces."""
    _check(_libc().unshare(flags), f"unshare({flags:#x})")


def set_namespace(fd: int, flags: int) -> None:
    """setns(2): move the calling thread into the namespace of the descriptor."""
    _check(_libc().setns(fd, flags), f"setns({flags:#x})")


def clone_mount(path: str) -> int:
    """open_tree(2): a copy of the mount at the path and of all below, mounted nowhere; gives its descriptor."""
    import ctypes

    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    fd: int = _libc().syscall(ctypes.c_long(_SYS_OPEN_TREE), _AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags))
    _check(fd, path)
    return fd


def move_mount(fd: int, target: str) -> None:
    """move_mount(2): mount what `clone_mount` gave."""
    import ctypes

    number, flags = ctypes.c_long(_SYS_MOVE_MOUNT), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    _check(_libc().syscall(number, fd, b"", _AT_FDCWD, os.fsencode(target), flags), target)


def become_subreaper(wanted: bool = True) -> None:
    """prctl(PR_SET_CHILD_SUBREAPER): whether orphaned descendants become children of this process."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def power_off() -> None:
    """sync(2), then reboot(2) with RB_POWER_OFF; returns only by an error."""
    os.sync()
    _check(_libc().reboot(_RB_POWER_OFF), "RB_POWER_OFF")


def reap() -> tuple[int, int] | None:
    """Collect one ended child of any kind: its pid, and its exit code or 128 + the signal that killed it.

    None when no child has ended, or there is none.
    """
    try:
        pid, status = os.waitpid(-1, os.WNOHANG | _WALL)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return pid, code if code >= 0 else 128 - code


def interface_up(name: str) -> None:
    """Set IFF_UP on a network interface. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH14x", name.encode(), 0)
        flags: int = struct.unpack_from("16xH", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | _IFF_UP))


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """ioctl(TIOCSWINSZ) on a terminal's master."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def unlock_terminal(master: int) -> str:
    """Let the slave of a terminal's master be opened; gives its path. Source: ioctl_tty(2)."""
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number: int = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    return f"/dev/pts/{number}"


def open_terminal_peer(master: int) -> int:
    """ioctl(TIOCGPTPEER): the slave of a terminal's master, without it becoming our controlling terminal."""
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2) with the directory as root: no `..`, no link, however absolute, leads out of it.

    Args:
        root: Descriptor of the directory.
        path: Path below it; an absolute one begins there as well.
        flags: As for open(2); O_CLOEXEC is added.
        mode: Of a file that is made.

    Returns:
        The descriptor.
    """
    import ctypes

    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    syscall = _libc().syscall
    arguments = (ctypes.c_long(_SYS_OPENAT2), root, os.fsencode(path or "."), how, ctypes.c_size_t(len(how)))
    fd: int = syscall(*arguments)
    _check(fd, path)
    return fd


def swap_on(path: str) -> None:
    """swapon(2), with no flags."""
    _check(_libc().swapon(os.fsencode(path), 0), path)


def reseed(entropy: bytes) -> None:
    """Feed the random number generator and make it use the new seed at once. Source: random(4)."""
    with open("/dev/random", "r+b", buffering=0) as device:
        device.write(entropy)
        fcntl.ioctl(device, _RNDADDTOENTCNT, struct.pack("i", len(entropy) * 8))
        fcntl.ioctl(device, _RNDRESEEDCRNG)


def missing_capabilities() -> frozenset[str]:
    """What this process's effective set lacks. Source: proc(5), `/proc/self/status`."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return frozenset(name for number, name in enumerate(CAPABILITIES) if not effective >> number & 1)
