"""Which cgroup a process is in, and the end of all processes in one.

The kernel is asked, not the spec: `/proc/<pid>/cgroup` says where crun has put the container.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CgroupV1:
    """A cgroup of the first generation: a directory for each controller."""

    directories: Mapping[str, Path]

    def kill(self) -> None:
        """Kill every process in it and below it. Frozen meanwhile, so that none escapes by forking."""
        freezer = self.directories.get("freezer")
        tree = freezer or next(iter(self.directories.values()))
        if freezer is not None:
            _write(freezer / "freezer.state", "FROZEN")
        try:
            _kill_listed(tree)
        finally:
            if freezer is not None:
                _write(freezer / "freezer.state", "THAWED")


@dataclass(frozen=True, slots=True)
class CgroupV2:
    """A cgroup of the second generation: one directory."""

    directory: Path

    def kill(self) -> None:
        """Kill every process in it and below it."""
        if not _write(self.directory / "cgroup.kill", "1"):  # Linux < 5.14
            _write(self.directory / "cgroup.freeze", "1")
            try:
                _kill_listed(self.directory)
            finally:
                _write(self.directory / "cgroup.freeze", "0")


Cgroup = CgroupV1 | CgroupV2


def unified(root: Path = ROOT) -> bool:
    """Whether this machine has cgroup v2 alone."""
    return (root / "cgroup.controllers").exists()


def of(pid: int, root: Path = ROOT) -> Cgroup:
    """The cgroup that a process is in. Source: cgroups(7), `/proc/pid/cgroup`.

    Raises:
        OSError: There is no such process.
    """
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    entries = [line.split(":", 2)[1:] for line in lines]
    if unified(root):
        path = next(path for controllers, path in entries if not controllers)
        return CgroupV2(root / path.lstrip("/"))
    return CgroupV1(
        {
            controller: root / controller / path.lstrip("/")
            for controllers, path in entries
            for controller in controllers.split(",")
            if controller and "=" not in controller  # neither v2's line nor a named hierarchy's
        }
    )


_ELSEWHERE = 0  # how cgroup.procs lists a process of another pid namespace; to kill(2) it is our own group


def _kill_listed(tree: Path) -> None:
    killed: set[int] = set()
    while listed := set(_pids(tree)) - killed - {_ELSEWHERE}:
        for pid in listed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        killed |= listed


def _pids(tree: Path) -> Iterator[int]:
    for directory, _, _ in os.walk(tree):
        try:
            yield from map(int, Path(directory, "cgroup.procs").read_text().split())
        except OSError:
            continue  # removed meanwhile


def _write(file: Path, text: str) -> bool:
    try:
        file.write_text(text)
    except OSError as error:
        _LOG.warning("cannot write %s to %s: %s", text, file, error.strerror)
        return False
    return True
