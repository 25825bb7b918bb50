"""All the deaths: each a life of its own that is cut short, what cleans up after it, and what is left then."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import select
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kata_py.shim.command import NAME
from tests.conftest import REPOSITORY
from tests.crash.doom import Doom, Notes, Step
from tests.crash.life import Life
from tests.crash.node import DIES_WITHIN, Node, processes
from tests.crash.programs import Programs
from tests.manager import Manager
from tools import configuration, oci_image

PROGRAMS = ("start", "join", "shim")
CURES = ("delete", "gc")
_ATTEMPTS = 3
_LIFE_TIMEOUT = 90.0  # seconds; more than any death takes
_SHIM_TIMEOUT = 10.0  # seconds until a shim that was told to end has ended
# What the shim's programs import when they need it; the forked ones have it.
_WARM = (
    "google.protobuf.descriptor_pb2", "kata_py.cli.verbs.gc", "kata_py.shim.delete", "kata_py.shim.management",
    "kata_py.shim.service", "logging.handlers", "pyroute2", "sqlite3", "tests.drivers.namespace",
)  # fmt: skip


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
        died: Whether the doomed did.
        left: What was left.
        seconds: How long it took.
    """

    point: Point
    steps: tuple[Step, ...]
    died: bool
    left: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Campaign:
    """What came of all of them.

    Attributes:
        steps: Of a whole life, by program.
        outcomes: Those of the deaths.
        seconds: How long it took.
    """

    steps: dict[str, tuple[Step, ...]]
    outcomes: tuple[Outcome, ...]
    seconds: float


def campaign(top: Path, *, workers: int) -> Campaign:
    """Lead whole lives for the steps that all have, and then have the doomed die before and after each of them.

    A life in which a step does not come, as what runs at the same time took another turn, is led again.

    Args:
        top: A directory with a short path.
        workers: How many lives at once.
    """
    began = time.monotonic()
    home = _prepare(top)
    outcomes = list(_run(home, [Point(Doom(program), "delete") for program in PROGRAMS] * 2, workers=workers))
    steps = {program: _common(outcomes, program) for program in PROGRAMS}
    points = [point for program in PROGRAMS for point in _points(program, steps[program])]
    for _ in range(_ATTEMPTS):
        lives = list(_run(home, points, workers=workers))
        outcomes += lives
        points = [outcome.point for outcome in lives if not outcome.died]
    return Campaign(steps, tuple(outcomes), time.monotonic() - began)


def _common(whole: Sequence[Outcome], program: str) -> tuple[Step, ...]:
    """The steps of a program that are in each of its whole lives, in the order of the first."""
    first, *others = [outcome.steps for outcome in whole if outcome.point.doom.program == program]
    seen = [Counter(step.what for step in steps) for steps in others]
    times: Counter[str] = Counter()
    common = []
    for step in first:
        times[step.what] += 1
        if all(times[step.what] <= each[step.what] for each in seen):
            common.append(step)
    return tuple(common)


def _points(program: str, steps: Sequence[Step]) -> Iterator[Point]:
    """The program dies at each, once for each cure; the agent, after which the shim itself cleans up, once."""
    times: Counter[str] = Counter()
    for step in steps:
        for after, other_cure in zip((False, True), CURES, strict=True):
            doom = Doom(program, step.what, times[step.what], after)
            for cure in CURES:
                yield Point(doom, cure)
            if program == "shim" and "agent" in step.victims:
                yield Point(replace(doom, victim="agent"), other_cure)
        times[step.what] += 1


_Home = tuple[Path, Path, Path]  # a directory, a configuration, a root file system


def _prepare(top: Path) -> _Home:
    for name in _WARM:
        importlib.import_module(name)
    sys.path.insert(0, str(REPOSITORY / "tests" / "drivers"))  # where the drivers' entry points are
    config = configuration.write(top / "configuration.toml", None, program="the tests", hypervisor="namespace")
    rootfs = top / "rootfs"
    rootfs.mkdir()
    oci_image.rootfs(rootfs)
    return top, config, rootfs


def _run(home: _Home, points: Sequence[Point], *, workers: int) -> Iterator[Outcome]:
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        jobs = [(home, number, point) for number, point in enumerate(points)]
        running = pool.imap_unordered(_die, jobs)
        for _ in points:
            yield running.next(timeout=_LIFE_TIMEOUT)


@functools.cache  # one for each process
def _home(top: Path, config: Path, rootfs: Path) -> tuple[Node, Manager]:
    """Make this process a node, with a manager on it."""
    node = Node.isolate(top / str(os.getpid()))
    return node, Manager(Path(NAME), node.top, config, rootfs)


def _die(job: tuple[_Home, int, Point]) -> Outcome:
    """Lead a life that is cut short, clean up, and look what is left."""
    home, number, point = job
    node, manager = _home(*home)
    began = time.monotonic()
    id = f"p{number}"  # short: stages of its second container have no more than twelve characters of its name
    directory = node.top / id
    directory.mkdir()
    notes = Notes(directory)
    programs = Programs(id, point.doom, notes, manager.environment, apart=point.cure == "gc")
    life = Life(id, node, manager, programs)
    left = life.lead()
    _await(node, notes.dead if point.doom.victim == "self" else 0)
    left += _clean_up(point.cure, life, programs)
    alive = node.bury(DIES_WITHIN)
    left += processes(alive)
    left += node.look(id)
    if left:
        node.scrub(id, alive)
    return Outcome(point, notes.steps(), notes.dead != 0, tuple(left), time.monotonic() - began)


def _await(node: Node, pid: int) -> None:
    """Wait for the end of the doomed, or if none died for that of all."""
    if not pid:
        node.bury(_SHIM_TIMEOUT)
        return
    with suppress(ProcessLookupError):
        died = os.pidfd_open(pid)
        try:
            select.select([died], [], [], DIES_WITHIN)
        finally:
            os.close(died)


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
