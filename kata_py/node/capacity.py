"""What is free on a node, and whether one more sandbox has room in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kata_py.config.model import REMOTE, Configuration
from kata_py.node import facts
from kata_py.node.eligibility import Finding, Verdict

# Where sandboxes and their managers write, as far as it is there.
PLACES = ("run", "dev/shm", "tmp", "var/lib/containerd", "var/lib/containers", "var/lib/kubelet", "var/log")
LOW, FULL = 0.05, 0.01  # parts of a file system that are free: less is told, or fails

_OVERHEAD = 350 << 20  # bytes of the host's beside the guest's memory: the guide's figure for a pod


def judged(configuration: Configuration, root: Path = Path("/")) -> Iterator[Finding]:
    """Judge memory, huge pages, disks and inodes.

    Args:
        configuration: Says how much a sandbox takes.
        root: Where the node's directories are.
    """
    yield from judged_memory(configuration, facts.memory(root))
    seen: set[int] = set()
    for place in PLACES:
        path = root / place
        try:
            device, found = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            yield from judged_space(path, "bytes", found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
            yield from judged_space(path, "inodes", found.f_favail, found.f_files)


def judged_memory(configuration: Configuration, memory: dict[str, int]) -> Iterator[Finding]:
    """Judge what /proc/meminfo tells, as `kata_py.node.facts.memory` reads it."""
    hypervisor = configuration.hypervisor
    wanted = hypervisor.default_memory << 20
    if hypervisor.name == REMOTE:
        return
    if hypervisor.enable_hugepages:
        free = memory.get("HugePages_Free", 0) * memory.get("Hugepagesize", 0)
        evidence = f"{_mib(free)} free; a sandbox takes {_mib(wanted)} (enable_hugepages)"
        if free < wanted:
            yield Finding("huge pages", Verdict.FAIL, evidence, "set more aside: vm.nr_hugepages")
        else:
            yield Finding("huge pages", Verdict.OK, evidence)
        wanted = 0
    available = memory.get("MemAvailable", 0)
    evidence = f"{_mib(available)} available; a sandbox takes up to {_mib(wanted + _OVERHEAD)}"
    if available < wanted + _OVERHEAD:
        fix = "end some pods, or lower default_memory: the kernel may kill a machine that grows"
        yield Finding("memory", Verdict.WARN, evidence, fix)
    else:
        yield Finding("memory", Verdict.OK, evidence)


def judged_space(path: Path, what: str, free: int, total: int) -> Iterator[Finding]:
    """Judge a file system; of one that tells no total nothing is said.

    Args:
        path: Where it is.
        what: `bytes` or `inodes`.
        free: How many are.
        total: How many there are.
    """
    if not total:
        return
    part = free / total
    told = f"{_mib(free)} of {_mib(total)}" if what == "bytes" else f"{free} of {total}"
    verdict = Verdict.FAIL if part < FULL else Verdict.WARN if part < LOW else Verdict.OK
    fix = "" if verdict is Verdict.OK else f"make room: see what fills it with du {'--inodes ' * (what == 'inodes')}-x"
    yield Finding(f"{path}: {what}", verdict, f"{told} free ({part:.0%})", fix)


def _mib(amount: int) -> str:
    return f"{amount >> 20} MiB"
