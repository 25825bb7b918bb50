"""How each change to the host is undone, as values that can be written to disk.

A sandbox's record holds these values, written before the change is made. Undoing is idempotent: a resource
that was never made, or is gone already, is success. So `delete`, restart recovery and `gc` can run the
whole list from the record alone, at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from kata_py.resource import mount, process
from kata_py.resource.link import RemoveLink as RemoveLink
from kata_py.resource.link import RemoveQdisc as RemoveQdisc
from kata_py.resource.link import RestoreLink as RestoreLink
from kata_py.resource.peer import StopPeer as StopPeer
from kata_py.resource.process import KillProcess as KillProcess


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
            OSError: Something below could not be removed, or was mounted meanwhile (EXDEV); nothing outside
                the tree was touched.
        """
        top = Path(os.path.abspath(self.path))  # noqa: PTH100 resolve() would follow a link planted in its place
        mount.detach_below(str(top))
        try:
            above = os.open(top.parent, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            _remove(top.name, above, str(top), mount_id=None)
        finally:
            os.close(above)


def _remove(name: str, above: int, path: str, mount_id: int | None) -> None:
    """Remove an entry of the directory open as `above`, refusing to enter another mount than `mount_id`."""
    with contextlib.suppress(FileNotFoundError):  # whoever else removes it is welcome
        if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            return
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            here = mount.mount_id(directory)
            if mount_id not in (None, here):
                raise OSError(errno.EXDEV, "a mount appeared inside a directory that is being removed", path)
            for entry in os.listdir(directory):  # noqa: PTH208 Path takes no descriptor
                _remove(entry, directory, f"{path}/{entry}", here)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=above)


@dataclass(frozen=True, slots=True)
class RemoveCgroup:
    """A cgroup directory (any generation): its processes are killed, then it is removed."""

    kind: ClassVar[str] = "remove-cgroup"
    path: str

    def perform(self) -> None:
        """Kill the cgroup's processes and remove it with its children, deepest first.

        Raises:
            OSError: It still has processes (EBUSY) after the time `process.KILL_TIMEOUT`.
        """
        deadline = time.monotonic() + process.KILL_TIMEOUT
        for directory, _, _ in os.walk(self.path, topdown=False):
            _remove_cgroup(Path(directory), deadline)


def _remove_cgroup(directory: Path, deadline: float) -> None:
    """Kill until nothing is left that could fork: a process may have done so after we read the list."""
    while True:
        try:
            pids = [int(line) for line in (directory / "cgroup.procs").read_text().split()]
            if os.getpid() in pids:
                _step_out(directory)
                continue
            for pid in filter(None, pids):  # 0 is a process of a pid namespace that we do not see into
                born = process.start_time(pid)
                if born is not None:
                    process.kill(pid, born, signal.SIGKILL, name=f"process in {directory}")
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # neither generation tells when a dead process has left its cgroup
        else:
            return


def _step_out(directory: Path) -> None:
    """Leave a cgroup that is to go for the topmost, which takes any process; those between may be about to go, too.

    On a node that is a container itself the topmost seen is not the root, and v2 may have it refuse all processes; the
    node's first process has a place there.
    """
    above = [parent for parent in directory.parents if (parent / "cgroup.procs").exists()]
    for other in (*reversed(above), *(_of_the_first_process(top) for top in above[-1:])):
        with contextlib.suppress(OSError):
            (other / "cgroup.procs").write_text(f"{os.getpid()}\n")
            return
    raise OSError(errno.EBUSY, "no cgroup above takes this process", str(directory))


def _of_the_first_process(top: Path) -> Path:
    """The cgroup of v2 that process 1 is in, below where v2 is mounted. Source: cgroups(7), `/proc/pid/cgroup`."""
    for line in Path("/proc/1/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return top / line.removeprefix("0::").lstrip("/")
    return top


@dataclass(frozen=True, slots=True)
class RemoveEmptyCgroup:
    """A cgroup directory that others may use too: it goes with the last of them."""

    kind: ClassVar[str] = "remove-empty-cgroup"
    path: str

    def perform(self) -> None:
        """Remove it unless something is in it."""
        try:
            Path(self.path).rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise


Undo = (
    KillProcess
    | Unmount
    | RemoveFile
    | RemoveTree
    | RemoveCgroup
    | RemoveEmptyCgroup
    | RemoveLink
    | RemoveQdisc
    | RestoreLink
    | StopPeer
)

_KINDS: dict[object, type[Undo]] = {kind.kind: kind for kind in Undo.__args__}


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
