"""What a cgroup's files say, in the names of whichever generation the host has.

Source: Linux `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

_UNLIMITED = 1 << 60  # what v1 says where nothing was set is rounded down to pages


def unified(root: Path = ROOT) -> bool:
    """Whether there is v2 alone."""
    return (root / "cgroup.controllers").exists()


def directory(controller: str, path: str, root: Path = ROOT) -> Path:
    """A cgroup, as the controller has it."""
    return (root if unified(root) else root / controller) / path.lstrip("/")


def of(pid: int) -> set[str]:
    """The paths of the cgroups that a process is in, but for those that account for nothing."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    counted = ("",) if unified() else ("cpu", "devices", "memory", "pids")
    return {path for _, names, path in lines if names in counted}


def limit_memory(path: str, limit: int) -> Path:
    """Let a cgroup have that many bytes, and return its directory."""
    place = directory("memory", path)
    (place / ("memory.max" if unified() else "memory.limit_in_bytes")).write_text(str(limit))
    return place


def cpu_time(path: str, root: Path = ROOT) -> int:
    """Nanoseconds that it has used."""
    place = directory("cpuacct", path, root)
    if unified(root):
        return _table(place / "cpu.stat")["usage_usec"] * 1000
    return int((place / "cpuacct.usage").read_text())


def memory(path: str, root: Path = ROOT) -> int:
    """Bytes that it uses."""
    return _number(directory("memory", path, root), "memory.usage_in_bytes", "memory.current", root) or 0


def memory_peak(path: str, root: Path = ROOT) -> int:
    """The most that it has used."""
    return _number(directory("memory", path, root), "memory.max_usage_in_bytes", "memory.peak", root) or 0


def memory_table(path: str, root: Path = ROOT) -> dict[str, int]:
    """What it uses memory for, by the kernel's names."""
    return _table(directory("memory", path, root) / "memory.stat")


@dataclass(frozen=True, slots=True)
class Limits:
    """A cgroup's limits; None is none.

    Attributes:
        memory: Bytes.
        reservation: Bytes that are taken from it last.
        quota: Microseconds of each period.
        period: Microseconds.
        weight: Its share of the processors, in v2's measure.
        pids: Processes and threads.
    """

    memory: int | None
    reservation: int | None
    quota: int | None
    period: int
    weight: int
    pids: int | None

    @classmethod
    def read(cls, path: str, root: Path = ROOT) -> Limits:
        """Those of a cgroup."""
        memory, cpu, pids = (directory(name, path, root) for name in ("memory", "cpu", "pids"))
        if unified(root):
            quota, period = (cpu / "cpu.max").read_text().split()
            weight = int((cpu / "cpu.weight").read_text())
        else:
            quota, period = (cpu / "cpu.cfs_quota_us").read_text().strip(), (cpu / "cpu.cfs_period_us").read_text()
            shares = int((cpu / "cpu.shares").read_text())
            weight = 1 + (shares - 2) * 9999 // 262142  # as runtimes convert it
        return cls(
            memory=_number(memory, "memory.limit_in_bytes", "memory.max", root),
            reservation=_number(memory, "memory.soft_limit_in_bytes", "memory.low", root),
            quota=None if quota in ("max", "-1") else int(quota),
            period=int(period),
            weight=weight,
            pids=_number(pids, "pids.max", "pids.max", root),
        )


def _number(place: Path, v1: str, v2: str, root: Path) -> int | None:
    text = (place / (v2 if unified(root) else v1)).read_text().strip()
    return None if text == "max" or int(text) > _UNLIMITED else int(text)


def _table(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}
