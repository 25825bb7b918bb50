"""All the deaths: each a life of its own that is cut short, what cleans up after it, and what is left then."""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource import process
from kata_py.shim.command import NAME
from tests.conftest import REPOSITORY
from tests.crash.doom import Doom, Notes, Step
from tests.crash.life import Life
from tests.crash.node import DIES_WITHIN, Node, processes
from tests.crash.programs import Programs
from tests.manager import Manager
from tools import configuration, oci_image

_LIFE_TIMEOUT = 90.0  # seconds; more than any death takes
_SHIM_TIMEOUT = 10.0  # seconds until a shim that was told to end has ended


@dataclass(frozen=True, slots=True)
class Point:
    """A death, and what cleans up.

    Attributes:
        doom: Who dies, and when.
        cure: `delete`, as containerd runs it; or `gc`, which is all there is under CRI-O.
    """

    doom: Doom
    cure: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a death.

    Attributes:
        point: The death.
        steps: Those that were noted: the fatal one, or all; none if it never came.
        left: What was left.
        seconds: How long it took.
    """

    point: Point
    steps: tuple[tuple[str, Step], ...]
    left: tuple[str, ...]
    seconds: float


# What the shim's programs import when they need it; the forked ones have it.
_WARM = (
    "google.protobuf.descriptor_pb2", "kata_py.cli.verbs.gc", "kata_py.shim.delete", "kata_py.shim.management",
    "kata_py.shim.service", "logging.handlers", "pyroute2", "sqlite3", "tests.drivers.namespace",
)  # fmt: skip

@functools.cache  # one for each process
def _home(top: Path, config: Path, rootfs: Path) -> tuple[Node, Manager]:
    """Make this process a node, with a manager on it."""
    node = Node.isolate(top / str(os.getpid()))
    return node, Manager(Path(NAME), node.top, config, rootfs)


def _die(home: tuple[Path, Path, Path], number: int, point: Point) -> Outcome:
    """Lead a life that is cut short, clean up, and look what is left."""
    node, manager = _home(*home)
    began = time.monotonic()
    id = f"p{number}"
    directory = node.top / id
    directory.mkdir()
    notes = Notes(directory)
    programs = Programs(id, point.doom, notes, {**manager.environment})
    life = Life(id, node, manager, programs)
    left = life.lead()
    _await(node, notes.dead if point.doom.victim == "self" else 0)
    left += _clean_up(point.cure, life, programs)
    alive = node.bury(DIES_WITHIN)
    left += processes(alive)
    left += node.look(id)
    if left:
        node.scrub(id, alive)
    return Outcome(point, tuple(notes.steps()), tuple(left), time.monotonic() - began)


def _await(node: Node, pid: int) -> None:
    """Wait for the end of the doomed, or if none died for that of all."""
    if not pid:
        node.bury(_SHIM_TIMEOUT)
        return
    deadline = time.monotonic() + DIES_WITHIN
    while process.start_time(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.001)


def _clean_up(cure: str, life: Life, programs: Programs) -> list[str]:
    """Do what the manager does then, and what cleans up after it; gives what failed of that."""
    failed = []
    if cure == "delete":
        for id, bundle in reversed(life.bundles.items()):
            code, said = programs.spared().delete(life.manager.command(id)[1:], bundle)
            if code:
                failed.append(f"delete of {id} failed: {said}")
    life.forget()
    if cure == "gc":
        code, said = programs.spared().gc()
        if code:
            failed.append(f"gc failed: {said}")
    return failed


def run(top: Path, points: list[Point], *, workers: int) -> Iterator[Outcome]:
    """Have them all die, side by side.

    Args:
        top: A directory with a short path.
        points: The deaths.
        workers: How many at once.
    """
    for name in _WARM:
        importlib.import_module(name)
    sys.path.insert(0, str(REPOSITORY / "tests" / "drivers"))  # where the drivers' entry points are
    config = configuration.write(top / "configuration.toml", None, program="the tests", hypervisor="namespace")
    rootfs = top / "rootfs"
    if not rootfs.exists():
        rootfs.mkdir()
        oci_image.rootfs(rootfs)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        jobs = [((top, config, rootfs), number, point) for number, point in enumerate(points)]
        running = pool.imap_unordered(_die_one, jobs)
        for _ in points:
            yield running.next(timeout=_LIFE_TIMEOUT)


def _die_one(job: tuple[tuple[Path, Path, Path], int, Point]) -> Outcome:
    return _die(*job)
