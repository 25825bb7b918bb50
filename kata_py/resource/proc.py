"""What the kernel tells of processes, read when somebody asks. Source: proc_pid_status(5), proc_tid_children(5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

_OWN = ("RssAnon:", "RssFile:")
_SHARED = ("RssShmem:", "HugetlbPages:")


@dataclass(frozen=True, slots=True)
class Resident:
    """What of a process is resident in memory, in bytes.

    Attributes:
        own: Its own, and the files that it maps.
        shared: What it may share: of a hypervisor, the guest's memory. Whoever else maps that shows it as well.
    """

    own: int
    shared: int


def resident(pid: int, proc: Path = PROC) -> Resident | None:
    """What of a process is resident; None if it is gone. Blocks."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return Resident(_bytes(lines, _OWN), _bytes(lines, _SHARED))


def worker(pid: int, proc: Path = PROC) -> int:
    """The process that does a program's work, where it forks once and waits: virtiofsd does, to get its namespaces.

    That is its only child, else the process itself. Blocks.
    """
    try:
        children = (proc / str(pid) / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return pid
    return int(children[0]) if len(children) == 1 else pid


def _bytes(lines: Iterable[str], kinds: tuple[str, ...]) -> int:
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(kinds))
