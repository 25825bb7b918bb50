"""What PID 1 owes the machine: its mounts, its name, its loopback, and turning it off.

Part of the boot path: what the initramfs has done already is seen and left alone, and nothing is imported
that costs. Source: kata-containers' `src/agent/src/{mount,linux_abi}.rs` for places and flags.
"""

# pathlib is an import that the boot would wait for.
# ruff: noqa: PTH102, PTH112, PTH123, PTH211

from __future__ import annotations

import errno
import os

from kata_agent import linux

_MOUNTS = (
    ("proc", "/proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, ""),
    ("sysfs", "/sys", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, ""),
    ("devtmpfs", "/dev", linux.MS_NOSUID, "mode=0755"),
    ("tmpfs", "/dev/shm", linux.MS_NOSUID | linux.MS_NODEV, ""),
    ("devpts", "/dev/pts", linux.MS_NOSUID | linux.MS_NOEXEC, ""),
    ("tmpfs", "/run", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755"),
    ("cgroup2", "/sys/fs/cgroup", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_RELATIME, "nsdelegate"),
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def set_up() -> None:
    """Make the machine fit to run containers.

    Raises:
        OSError: A mount failed; names it.
    """
    os.umask(0o022)
    os.environ["PATH"] = _PATH
    for fstype, target, flags, data in _MOUNTS:
        _mount(fstype, target, flags, data)
    if not os.path.lexists("/dev/ptmx"):
        os.symlink("pts/ptmx", "/dev/ptmx")
    _delegate_controllers("/sys/fs/cgroup")
    _set_hostname()
    linux.interface_up("lo")


def power_off() -> None:
    """Turn the machine off; without the right to, end the process."""
    try:
        linux.power_off()
    except OSError:
        os._exit(1)


def _mount(fstype: str, target: str, flags: int, data: str) -> None:
    if os.path.ismount(target):
        return
    if not os.path.isdir(target):
        os.mkdir(target, 0o755)
    try:
        linux.mount(fstype, target, fstype, flags, data)
    except OSError as error:
        if error.errno != errno.EBUSY:  # mounted there already
            raise


def _delegate_controllers(root: str) -> None:
    """Let the containers' cgroups have every controller that the kernel has."""
    with open(f"{root}/cgroup.controllers") as file:
        controllers = file.read().split()
    for controller in controllers:
        try:
            with open(f"{root}/cgroup.subtree_control", "w") as file:
                file.write(f"+{controller}")
        except OSError:
            continue  # one that cannot be had must not cost us the others


def _set_hostname() -> None:
    import socket

    try:
        with open("/etc/hostname") as file:
            name = file.read().strip()
    except FileNotFoundError:
        name = ""
    socket.sethostname(name or "localhost")
