"""Control groups of the host, of both generations: where they are mounted, made with their undo, and written to.

Source: Linux `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`; paths as kata `pkg/resourcecontrol/cgroups.go`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource.device_filter import DeviceFilter
from kata_py.resource.journal import Journal, undone
from kata_py.resource.undo import RemoveCgroup, RemoveEmptyCgroup

log = logging.getLogger(__name__)

# What accounts for, limits or confines a pod. The others say nothing of it.
CONTROLLERS = frozenset({"blkio", "cpu", "cpuacct", "cpuset", "devices", "hugetlb", "memory", "pids"})
_ON_V2 = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")
_PREFIX = "kata_"
_MARK = "trusted.kata-py"  # on parents that sandboxes made
_LOCK_TIMEOUT = 1.0  # seconds
_CPUSET = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of cgroups.

    Attributes:
        place: Where it is mounted.
        root: The cgroup that is seen there, by its path in the tree.
        controllers: Those of v1 that it has; none for v2, where each cgroup has its own.
    """

    place: Path
    root: str
    controllers: frozenset[str]

    @property
    def unified(self) -> bool:
        """Whether it is v2's."""
        return not self.controllers

    def directory(self, path: str) -> Path:
        """The cgroup of a path below the mounted root."""
        return self.place / path.lstrip("/")


def hierarchies(root: Path = Path("/")) -> tuple[Hierarchy, ...]:
    """The trees that count on this host: v1's with their controllers or, where there are none, v2's.

    Args:
        root: Where the host's `/proc` and mount points are.
    """
    found: dict[frozenset[str], Hierarchy] = {}
    unified: tuple[Hierarchy, ...] = ()
    for line in (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        mounted, _, behind = line.partition(" - ")
        fields, (fstype, _, options) = mounted.split(" "), behind.split(" ", 2)
        place = root / fields[4].lstrip("/")
        if fstype == "cgroup2":
            unified = (Hierarchy(place, fields[3], frozenset()),)
        elif fstype == "cgroup" and (controllers := CONTROLLERS.intersection(options.split(","))):
            found.setdefault(controllers, Hierarchy(place, fields[3], controllers))
    return tuple(found.values()) or unified


def sandbox_path(cgroups_path: str, sandbox_id: str) -> str:
    """Where a sandbox's cgroup goes.

    The last element gets a prefix: the manager makes, and removes, a cgroup of its own at the path of the spec. A
    path in systemd's form, `slice:prefix:name`, becomes that of the scope's directory; systemd is not told of it.

    Args:
        cgroups_path: `linux.cgroupsPath` of the sandbox's spec.
        sandbox_id: Stands in where the path is empty.
    """
    if is_systemd(cgroups_path):
        slice, prefix, name = cgroups_path.split(":")
        scope = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        return posixpath.join(_expanded(slice), scope)
    path = posixpath.normpath(f"/{cgroups_path}").replace("//", "/")
    parent, name = posixpath.split(path)
    return posixpath.join(parent, _PREFIX + (name or sandbox_id))


def is_systemd(cgroups_path: str) -> bool:
    """Whether a path has systemd's form."""
    slice, *rest = cgroups_path.split(":")
    return len(rest) == 2 and "/" not in cgroups_path and bool(rest[1]) and (not slice or slice.endswith(".slice"))


def _expanded(slice: str) -> str:
    """The directory of a slice, whose name tells all of its parents. Source: systemd.slice(5)."""
    stem = (slice or "system.slice").removesuffix(".slice")
    if stem == "-":
        return "/"
    parts = stem.split("-")
    return "/" + "/".join("-".join(parts[: n + 1]) + ".slice" for n in range(len(parts)))


class Cgroup:
    """A cgroup, in each hierarchy where it could be made.

    Args:
        path: Its path.
        directories: Its directories.
    """

    def __init__(self, path: str, directories: Mapping[Hierarchy, Path]) -> None:
        self.path = path
        self._directories = directories
        self._devices: list[str] = []
        self._filters = {place: DeviceFilter(place) for tree, place in directories.items() if tree.unified}

    def join(self, pid: int) -> None:
        """Put a process into it, with all of its threads and what it forks from now on.

        Raises:
            OSError: A hierarchy refuses it; it is in the others.
        """
        self._write_all("cgroup.procs", pid)

    def join_thread(self, tid: int) -> None:
        """Put a single thread into it, which v1 alone can.

        Raises:
            OSError: A hierarchy refuses it, or the thread is gone.
        """
        self._write_all("tasks", tid)

    def confine(self, cpus: str, mems: str) -> None:
        """Bind it to processors and memory nodes; an empty list is all that its parent has.

        Raises:
            OSError: The parent has not all of them.
        """
        for directory in self._having("cpuset"):
            for name, value in zip(_CPUSET, (cpus, mems), strict=True):
                file = directory / name
                if not file.exists():
                    raise FileNotFoundError(2, "the controller is not handed down to it", str(file))
                if wanted := value or self._inherited(directory, name):
                    self._write_each([(file, f"{wanted}\n")])

    def _inherited(self, directory: Path, name: str) -> str:
        """What to write for all that the parent has; empty where nothing needs to be written."""
        if directory not in self._filters:
            return (directory.parent / name).read_text().strip()
        if not (directory / name).read_text().strip():
            return ""  # it follows its parent, as it cannot again once it has a list, and processes
        return (directory.parent / f"{name}.effective").read_text().strip()

    def allow(self, rules: Iterable[str]) -> None:
        """Let it use devices of these rules, in the kernel's form, and no others; to be called once.

        Raises:
            OSError: The parent may not use one of them, which v1 alone can tell; the others are allowed.
        """
        for directory in self._having("devices"):
            if directory in self._filters:
                self._filters[directory].allow(())
            else:
                (directory / "devices.deny").write_text("a")
        self.admit(rules)

    def admit(self, rules: Iterable[str]) -> None:
        """Let it use devices of these rules besides those that it was allowed.

        Raises:
            OSError: As `allow`.
        """
        further = [rule for rule in dict.fromkeys(rules) if rule not in self._devices]
        if not further:
            return
        self._devices += further
        for directory in self._having("devices"):
            if directory in self._filters:
                self._filters[directory].allow(self._devices)
            else:
                self._write_each((directory / "devices.allow", rule) for rule in further)

    def close(self) -> None:
        """Let go of what was opened for it."""
        for each in self._filters.values():
            each.close()

    def _having(self, controller: str) -> Iterator[Path]:
        for hierarchy, directory in self._directories.items():
            if hierarchy.unified or controller in hierarchy.controllers:
                yield directory

    def _write_all(self, name: str, value: int) -> None:
        self._write_each((directory / name, f"{value}\n") for directory in self._directories.values())

    def _write_each(self, writes: Iterable[tuple[Path, str]]) -> None:
        fault: OSError | None = None
        for file, text in writes:
            try:
                file.write_text(text)
            except OSError as error:
                fault = OSError(error.errno, f"{error.strerror} to {text.strip()!r}", str(file))
        if fault is not None:
            raise fault


@contextmanager
def made(path: str, trees: Sequence[Hierarchy], journal: Journal) -> Iterator[Cgroup]:
    """A cgroup for as long as the context lasts; what is still in it at its end is killed.

    Parents that are missing are made too, and removed again by the sandbox that leaves them empty, whichever made them.
    A hierarchy that does not let us is warned of, and left out.

    Args:
        path: Its path.
        trees: The hierarchies.
        journal: Where its undo is written.

    Raises:
        OSError: The record cannot be written, or the cgroup cannot be removed at the end.
    """
    with ExitStack() as stack:
        directories = {}
        for tree in trees:
            directory = tree.directory(path)
            ours = ExitStack()
            try:
                try:
                    _make(tree, directory, journal, ours)
                except FileNotFoundError:  # another sandbox has just left its parent empty
                    _make(tree, directory, journal, ours)
            except OSError as error:
                log.warning("no cgroup for the sandbox in %s: %s", tree.place, error)
                ours.close()
                continue
            stack.push(ours.pop_all().__exit__)
            directories[tree] = directory
        cgroup = Cgroup(path, directories)
        stack.callback(cgroup.close)
        yield cgroup


@contextmanager
def joined(cgroup: Cgroup, trees: Sequence[Hierarchy], root: Path = Path("/")) -> Iterator[None]:
    """Be in a cgroup, and with us all that we start; leaving goes back to where we were."""
    before = membership(os.getpid(), trees, root)
    try:
        cgroup.join(os.getpid())
    except OSError as error:
        log.warning("the shim is not in its cgroup everywhere: %s", error)
    try:
        yield
    finally:
        for directory in before.values():
            with suppress(OSError):  # it is gone: whoever removes ours sees to it that we are not in it
                (directory / "cgroup.procs").write_text(f"{os.getpid()}\n")


def membership(pid: int, trees: Sequence[Hierarchy], root: Path = Path("/")) -> dict[Hierarchy, Path]:
    """The cgroups that a process is in. Source: cgroups(7), `/proc/pid/cgroup`.

    Raises:
        OSError: There is no such process.
    """
    found = {}
    for line in (root / f"proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        controllers = CONTROLLERS.intersection(names.split(","))
        for tree in trees:
            if tree.controllers == controllers and (tree.controllers or not names):
                below = posixpath.relpath(path, tree.root)
                found[tree] = tree.place if below.startswith("..") else tree.directory(below)
    return found


class OomKills:
    """Tells whether the host's kernel has killed in a process's cgroup for want of memory.

    Args:
        pid: The process; it must live.
        root: Where the host's `/proc` and mount points are.
    """

    def __init__(self, pid: int, root: Path = Path("/")) -> None:
        self._files: list[Path] = []
        with suppress(OSError):
            trees = [tree for tree in hierarchies(root) if tree.unified or "memory" in tree.controllers]
            for tree, directory in membership(pid, trees, root).items():
                self._files.append(directory / ("memory.events.local" if tree.unified else "memory.oom_control"))
        self._before = self._count()

    def told(self) -> str:
        """The cgroup in which it has killed since this began; empty if it has not."""
        return str(self._files[0].parent) if self._count() > self._before else ""

    def _count(self) -> int:
        total = 0
        for file in self._files:
            with suppress(OSError):
                counts = dict(line.split() for line in file.read_text().splitlines())
                total += int(counts.get("oom_kill", 0))
        return total


def _make(tree: Hierarchy, directory: Path, journal: Journal, stack: ExitStack) -> None:
    _make_parents(tree, directory.parent, journal, stack)
    stack.enter_context(undone(journal, RemoveCgroup(str(directory))))
    directory.mkdir(exist_ok=True)
    _inherit(tree, directory)


def _make_parents(tree: Hierarchy, directory: Path, journal: Journal, stack: ExitStack) -> None:
    """Make what is missing above a cgroup, and hand the controllers down."""
    above = [parent for parent in (directory, *directory.parents) if parent.is_relative_to(tree.place)]
    with _one_by_one(tree.place):
        for parent in reversed(above):
            missing = not parent.is_dir()
            if missing or _is_ours(parent):
                stack.enter_context(undone(journal, RemoveEmptyCgroup(str(parent))))
            if missing:
                parent.mkdir(exist_ok=True)
                with suppress(OSError):  # who may not set it removes only what it made itself
                    os.setxattr(parent, _MARK, b"")
                _inherit(tree, parent)
            if tree.unified:
                hand_down(parent)


@contextmanager
def _one_by_one(place: Path) -> Iterator[None]:
    """Keep other sandboxes' parents waiting: one that is made and not marked yet would be taken for a manager's.

    Whoever holds the lock for longer than a moment is stopped, and not worth waiting for.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno == errno.EWOULDBLOCK and time.monotonic() < deadline:
                    time.sleep(0.002)
                    continue
            break
        yield
    finally:
        os.close(descriptor)


def _is_ours(directory: Path) -> bool:
    """Whether a sandbox, not a manager, has made it."""
    try:
        os.getxattr(directory, _MARK)
    except OSError:
        return False
    return True


def _inherit(tree: Hierarchy, directory: Path) -> None:
    """v1 takes no process into a new cgroup that has not been given processors and memory nodes."""
    if "cpuset" in tree.controllers:
        for name in _CPUSET:
            if not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())


def hand_down(directory: Path) -> None:
    """Let the children of a v2 cgroup have its controllers, one by one: a refusal is not that of the others.

    One with processes of its own is left as it is: the controllers that the kernel would hand down all the same are
    those for threads, and would make its children cgroups that no process can enter. Only the root may have both.
    """
    if (directory / "cgroup.type").exists() and (directory / "cgroup.procs").read_text():
        return
    has = (directory / "cgroup.controllers").read_text().split()
    given = (directory / "cgroup.subtree_control").read_text().split()
    for controller in _ON_V2:
        if controller in has and controller not in given:
            with suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")
