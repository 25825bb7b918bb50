"""How each change to the host is undone, as values that can be written to disk.

A sandbox's record holds these values, written before the change is made. Undoing is idempotent: a resource
that was never made, or is gone already, is success. So `delete`, restart recovery and `gc` can run the
whole list from the record alone, at any time.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from kata_py.resource import mount, process


@dataclass(frozen=True, slots=True)
class KillProcess:
    """A child process: killed, and waited for, if it still is the one that was started.

    Attributes:
        pid: Its process id on the host.
        start_time: Field 22 of `/proc/<pid>/stat`, in clock ticks since boot: tells it from a later process
            that got the same id.
        name: What it is, for people: `qemu`, `virtiofsd`.
    """

    kind: ClassVar[str] = "kill-process"
    pid: int
    start_time: int
    name: str

    def perform(self) -> None:
        """Kill the process and wait until it is gone, at most five seconds."""
        process.kill(self.pid, self.start_time, signal.SIGKILL, name=self.name)


@dataclass(frozen=True, slots=True)
class Unmount:
    """A mount point: detached lazily, as often as something is mounted there."""

    kind: ClassVar[str] = "unmount"
    path: str

    def perform(self) -> None:
        """Detach whatever is mounted at the path."""
        mount.detach(self.path)


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """A file, socket or fifo."""

    kind: ClassVar[str] = "remove-file"
    path: str

    def perform(self) -> None:
        """Unlink the path."""
        Path(self.path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """A directory of ours with all that is in it; never what is mounted into it."""

    kind: ClassVar[str] = "remove-tree"
    path: str

    def perform(self) -> None:
        """Detach what is mounted below the path, then remove the tree.

        Raises:
            OSError: Something below could not be removed; nothing outside the tree was touched.
        """
        mount.detach_below(self.path)
        if os.path.lexists(self.path):
            shutil.rmtree(self.path)


@dataclass(frozen=True, slots=True)
class RemoveCgroup:
    """A cgroup directory (any generation): its processes are killed, then it is removed."""

    kind: ClassVar[str] = "remove-cgroup"
    path: str

    def perform(self) -> None:
        """Kill the cgroup's processes and remove it with its children, deepest first."""
        top = Path(self.path)
        for directory in sorted((d for d in top.rglob("*") if d.is_dir()), reverse=True) if top.is_dir() else ():
            _empty_cgroup(directory)
        if top.is_dir():
            _empty_cgroup(top)


def _empty_cgroup(directory: Path) -> None:
    for line in (directory / "cgroup.procs").read_text().split():
        start_time = process.start_time(int(line))
        if start_time is not None:
            process.kill(int(line), start_time, signal.SIGKILL, name=f"process in {directory}")
    directory.rmdir()


Undo = KillProcess | Unmount | RemoveFile | RemoveTree | RemoveCgroup

_KINDS: dict[str, type[Undo]] = {
    kind.kind: kind for kind in (KillProcess, Unmount, RemoveFile, RemoveTree, RemoveCgroup)
}


def to_json(undo: Undo) -> dict[str, Any]:
    """The undo as a JSON object: its fields, and `kind`."""
    return {"kind": undo.kind, **asdict(undo)}


def from_json(value: dict[str, Any]) -> Undo:
    """Read back what `to_json` wrote.

    Raises:
        ValueError: Unknown kind, or fields that do not fit it.
    """
    fields = dict(value)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of undo {kind!r}; this record is of a newer version or damaged")
    try:
        return _KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"undo {kind!r}: {error}") from error
