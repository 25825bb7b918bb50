"""A node of its own for lives that end badly: a /run, a network, and every orphan its own child."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kata_py.resource import mount
from tools.footprint import SHARED_PARENTS

DIES_WITHIN = 5.0  # seconds from the last deed until what is killed is gone
_PR_SET_CHILD_SUBREAPER = 36
_CGROUPS = Path("/sys/fs/cgroup")
_KEPT = Path("/run/vc/failures")  # bounded, and meant to outlive its sandboxes
_POD = "pod"
_LINKS = """\
link add {name} type veth peer name {peer} netns {pid}
addr add {address} dev {name}
link set {name} up
"""
_SPARED = ("cpuset", "unified")  # of v1: each further one is as many steps again


@dataclass(slots=True)
class Node:
    """The node that this process is; made by `isolate`.

    Attributes:
        top: A directory of its own.
        netns: A pod's network namespace, with the link eth0 in it.
    """

    top: Path
    netns: Path
    _known: set[str] = field(default_factory=set)

    @classmethod
    def isolate(cls, top: Path) -> Node:
        """Leave the host's mounts and network, and be whom orphans go to; for good."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        mount.unshare(mount.CLONE_NEWNS | mount.CLONE_NEWNET)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        mount.mount("tmpfs", "/run", "tmpfs", data="mode=755")
        for point in mount.mount_points():
            if Path(point).parent == _CGROUPS and Path(point).name not in _SPARED:
                mount.unmount(point, mount.MNT_DETACH)
        top.mkdir()
        subprocess.run(["ip", "netns", "add", _POD], check=True)
        node = cls(top, Path("/run/netns", _POD))
        node.add_link("eth0", "10.1.0.2/24")
        node._known = node._take("")
        return node

    def add_link(self, name: str, address: str) -> None:
        """Give the pod a further link."""
        words = _LINKS.format(name=name, peer=f"{name}-peer", pid=os.getpid(), address=address)
        subprocess.run(["ip", "-n", _POD, "-batch", "-"], input=words, text=True, check=True)

    def remove_link(self, name: str) -> None:
        """Take it again, if it is there."""
        subprocess.run(["ip", "-n", _POD, "link", "del", name], check=False, stderr=subprocess.DEVNULL)

    def bury(self, within: float = DIES_WITHIN) -> list[int]:
        """Wait until no child is left, and give those that still are."""
        deadline = time.monotonic() + within
        while True:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            left = _children()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.001)  # whose children become ours, and when, nothing tells

    def look(self, id: str) -> list[str]:
        """What has come since the last look, but for processes; of cgroups, which are the host's, the sandbox's."""
        found = self._take(id)
        new, self._known = sorted(found - self._known), found
        return new

    def _take(self, id: str) -> set[str]:
        found = {f"mount {point}" for point in mount.mount_points()}
        found |= {f"file {path}" for path in _files(Path("/run"))}
        found |= {f"cgroup {path}" for path in _cgroups(id)}
        found |= {f"link {name}" for _, name in socket.if_nameindex()}
        found |= {f"pod: {line}" for line in self._network()}
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                if str(self.top) in (text := backing.read_text()):
                    found.add(f"loop device {text.strip()}")
        return found

    def _network(self) -> list[str]:
        look = "ip -o -br link; ip -o -br addr; tc qdisc show"
        line = ["nsenter", f"--net={self.netns}", "sh", "-c", look]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()

    def scrub(self, id: str, processes: list[int]) -> None:
        """Remove what was left, so that the next life does not suffer from it."""
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.bury()
        for path in (Path("/run/vc/sbs", id), Path("/run/vc/vm", id), Path("/run/containerd/s")):
            shutil.rmtree(path, ignore_errors=True)


def processes(pids: list[int]) -> list[str]:
    """Processes in words."""
    found = []
    for pid in pids:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append(f"process {pid} {words[:100]}")
    return found


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _files(directory: Path) -> list[Path]:
    found = []
    for entry in os.scandir(directory):
        path = Path(entry.path)
        if path not in SHARED_PARENTS:
            found.append(path)
        if path != _KEPT and entry.is_dir(follow_symlinks=False):
            found += _files(path)
    return found


def _cgroups(id: str) -> list[str]:
    trees = [point for point in mount.mount_points() if Path(point) == _CGROUPS or _CGROUPS in Path(point).parents]
    return [
        path for tree in trees if mount.fstype_at(tree).startswith("cgroup") for path, _, _ in os.walk(tree)
        if id and id in Path(path).name
    ]  # fmt: skip
