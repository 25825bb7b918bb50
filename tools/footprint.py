"""What our software could leave on a machine: taken before and after, the two must be equal."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource.mount import mount_points

# Programs that a sandbox consists of; other processes of the machine are none of our business.
_PROGRAMS = (
    "containerd --config",
    "ctr --address",
    "containerd-shim-kata",
    "qemu-system-",
    "virtiofsd",
    "kata_agent",
    "crun",
)
_RUN_DEPTH = 4
_SAVE_TIMEOUT = 10.0  # seconds
_CNI = Path("/var/lib/cni")  # what libcni remembers of networks that are in use

# Directories that containerd, shims and CRI-O make and share; nobody can tell when the last one has left.
SHARED_PARENTS = tuple(
    Path(path)
    for path in (
        "/run/containerd", "/run/containerd/s", "/run/vc", "/run/vc/sbs", "/run/vc/vm", "/run/vc/boots",
        "/run/vc/failures", "/run/vc/shims",
        "/run/kata-containers", "/run/kata-containers/shared", "/run/kata-containers/shared/sandboxes",
        "/run/kata-containers/shared/direct-volumes",
        "/var/lib/cni", "/var/lib/cni/cache", "/var/lib/cni/results",
    )
)  # fmt: skip

_KEPT = "/run/vc/failures"  # bounded, and meant to outlive its sandboxes


@contextmanager
def without_new_parents() -> Iterator[None]:
    """Afterwards, remove the shared parents that were not there before and are empty."""
    absent = [path for path in SHARED_PARENTS if not path.exists()]
    try:
        yield
    finally:
        for path in reversed(absent):
            with suppress(OSError):  # not empty: somebody else's now; or never made
                path.rmdir()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Processes, mounts, network links, firewall rules, cgroups and entries of /run and CNI's store at one moment.

    A network namespace is seen as a mount, and as an entry of /run/netns.
    """

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    cgroups: frozenset[str]
    run: frozenset[str]

    @classmethod
    def take(cls, run: Path = Path("/run")) -> Footprint:
        """Look at the machine now."""
        return cls(
            processes=frozenset(_processes()),
            mounts=frozenset(mount_points()),
            links=frozenset(link.name for link in Path("/sys/class/net").iterdir()),
            rules=frozenset(_rules()),
            cgroups=frozenset(directory for directory, _, _ in os.walk("/sys/fs/cgroup")),
            run=frozenset([*_entries(run, _RUN_DEPTH), *_entries(_CNI, _RUN_DEPTH)]),
        )

    def added_since(self, before: Footprint) -> list[str]:
        """What is there now and was not there before, one line each; empty is how it should be."""
        return [
            f"{kind}: {entry}"
            for kind in ("processes", "mounts", "links", "rules", "cgroups", "run")
            for entry in sorted(getattr(self, kind) - getattr(before, kind))
        ]


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        line = b" ".join(arguments[:4]).decode(errors="replace")
        if any(program in line for program in _PROGRAMS):
            found.append(f"{entry.name} {line}")
    return found


def _rules() -> list[str]:
    """Chains and rules of the firewall, without their counters; none where there is no iptables."""
    found = []
    for program in filter(shutil.which, ("iptables-save", "ip6tables-save")):
        saved = subprocess.run([program], check=False, capture_output=True, text=True, timeout=_SAVE_TIMEOUT).stdout
        table = ""
        for line in saved.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A") or (line.startswith(":") and line.split()[1] == "-"):
                found.append(f"{program.removesuffix('-save')} {table} {line.partition(' [')[0]}")
    return found


def _entries(directory: Path, depth: int) -> list[str]:
    found: list[str] = []
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for entry in entries:
        found.append(entry.path)
        if entry.path == _KEPT:
            continue
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            found += _entries(Path(entry.path), depth - 1)
    return found
