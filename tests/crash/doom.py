"""Steps that a program of the shim puts on record, and its death before or after one of them.

A step is a change of what others find a sandbox by: its record, its socket, the files in its bundle. What it was is
told by the record itself, before and after. A program is armed in a process of its own, which it may not outlive.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kata_py.resource import file
from kata_py.sandbox import shims
from kata_py.sandbox.record import ROOT
from kata_py.shim import bundle, listener, start

_KILL_TIMEOUT = 5.0  # seconds
_RECORD = "record.json"
_FILES = (bundle.ADDRESS, bundle.PID)
_MARKS = "unlink", "rmdir", "mkdir", "symlink"
_VERBS = {"unlink": "remove", "rmdir": "remove", "mkdir": "make", "symlink": "make", "rename": "write"}
_SECRETS = (  # of one life, and its place in the table's texts
    (re.compile(r"kata-py-tests-\d+"), "POD"),
    (re.compile(r"\d{20}-\d+"), "TICKET"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SOCKET"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a program puts on record.

    Attributes:
        phase: What the manager had asked for.
        what: What it is, without what differs from one sandbox to the next.
        victims: Who could be killed meanwhile: the program, and the sandbox's processes on record.
    """

    phase: str
    what: str
    victims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Doom:
    """Who dies, and when.

    Attributes:
        program: In which program the steps are counted: `start` of a pod, `join` of a further container, `shim`.
        what: At which step: their order is not in all lives the same. Empty is never: all steps are noted.
        time: At which of the steps of that name, from 0 on.
        after: Whether after it, not before it.
        victim: `self` is the program; else the process that the record has by this name.
    """

    program: str
    what: str = ""
    time: int = 0
    after: bool = False
    victim: str = "self"


class Notes:
    """What is noted for, and by, the doomed: a directory of one life."""

    def __init__(self, directory: Path) -> None:
        self._phase = directory / "phase"
        self._steps = directory / "steps"
        self._pid = directory / "pid"

    def enter(self, phase: str) -> None:
        """The manager begins to ask for something."""
        file.replace(str(self._phase), phase)

    @property
    def phase(self) -> str:
        """What the manager has asked for last."""
        return self._phase.read_text()

    def add(self, step: Step) -> None:
        """Note a step."""
        with self._steps.open("a") as steps:
            steps.write(json.dumps([step.phase, step.what, step.victims]) + "\n")

    def steps(self) -> tuple[Step, ...]:
        """The steps noted."""
        lines = self._steps.read_text().splitlines() if self._steps.exists() else ()
        return tuple(Step(phase, what, tuple(victims)) for phase, what, victims in map(json.loads, lines))

    def doomed(self, pid: int) -> None:
        """Note who dies now."""
        file.replace(str(self._pid), str(pid))

    @property
    def dead(self) -> int:
        """The process that died; 0 if none has."""
        return int(self._pid.read_text()) if self._pid.exists() else 0


@contextmanager
def armed(doom: Doom, program: str, sandbox: str, home: Path, notes: Notes) -> Iterator[None]:
    """Count this process's steps meanwhile, and let the doomed die at the moment.

    Args:
        doom: Who dies, and when.
        program: Which program this process is.
        sandbox: The sandbox's id.
        home: The bundle of the container that the program was called for.
        notes: Where it is noted.
    """
    with ExitStack() as stack:
        if doom.program == program:
            counter, ours = _Counter(doom, sandbox, home, notes), _places(sandbox, home)
            for name in (*_MARKS, "rename"):
                stack.enter_context(patch.object(os, name, _watched(name, getattr(os, name), counter, ours)))
            stack.enter_context(patch.object(listener, "_bind", counter.around("bind SOCKET", listener._bind)))
            stack.enter_context(patch.object(start, "_spawn", counter.around("run the shim", start._spawn)))
        yield


def _places(sandbox: str, home: Path) -> Callable[[str], bool]:
    record = ROOT / sandbox
    own = {str(record), str(record / _RECORD), *(str(home / name) for name in _FILES)}
    return lambda path: path in own or str(Path(path).parent) in (listener.DIRECTORY, shims.ROOT)


class _Counter:
    def __init__(self, doom: Doom, sandbox: str, home: Path, notes: Notes) -> None:
        self._doom, self._sandbox, self._home, self._notes = doom, sandbox, str(home), notes
        self._record = ROOT / sandbox / _RECORD
        self._turn = threading.RLock()
        self._times: Counter[str] = Counter()

    def around(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            return self.step(lambda: what, lambda: real(*args, **options))

        return wrapped

    def step(self, what: Callable[[], str], act: Callable[[], Any]) -> Any:
        with self._turn:
            text = self._general(what())
            fatal = (text, self._times[text]) == (self._doom.what, self._doom.time)
            self._times[text] += 1
            if fatal or not self._doom.what:
                self._notes.add(Step(self._notes.phase, text, ("self", *self._processes())))
            if fatal and not self._doom.after:
                self._kill()
            done = act()
            if fatal and self._doom.after:
                self._kill()
            return done

    def _general(self, text: str) -> str:
        for pattern, name in _SECRETS:
            text = pattern.sub(name, text)
        return text.replace(self._home, "BUNDLE").replace(self._sandbox, "ID")

    def _processes(self) -> dict[str, int]:
        try:
            entries = json.loads(self._record.read_bytes())["undo"]
        except (FileNotFoundError, ValueError):
            return {}
        return {entry["name"]: entry["pid"] for entry in entries if entry["kind"] == "kill-process"}

    def _kill(self) -> None:
        if self._doom.victim == "self":
            self._notes.doomed(os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        pid = self._processes().get(self._doom.victim, 0)
        if not pid:
            return  # it has ended a moment ago
        self._notes.doomed(pid)
        descriptor = os.pidfd_open(pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], _KILL_TIMEOUT)
        os.close(descriptor)


def _watched(name: str, real: Callable[..., Any], counter: _Counter, ours: Callable[[str], bool]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        path = os.fspath(args[1 if name in ("rename", "symlink") else 0])
        if options.get("dir_fd") is not None:
            path = str(Path(f"/proc/self/fd/{options['dir_fd']}").readlink() / path)
        if not ours(path):
            return real(*args, **options)
        what = f"{_VERBS[name]} {_called(path)}"
        if name == "rename" and path.endswith(_RECORD):
            return counter.step(lambda: _difference(args[1], args[0]), lambda: real(*args, **options))
        return counter.step(lambda: what, lambda: real(*args, **options))

    return wrapped


def _called(path: str) -> str:
    """A path in the table's words."""
    shared = {listener.DIRECTORY: "SOCKET", shims.ROOT: "the note of SOCKET", str(ROOT): "the record"}
    return shared.get(str(Path(path).parent), Path(path).name)


def _difference(before: str, after: str) -> str:
    """What a record says that it did not say before."""
    new = json.loads(Path(after).read_bytes())
    try:
        old = json.loads(Path(before).read_bytes())
    except FileNotFoundError:
        return "begin the record"
    said = [f"intend {_undo(entry)}" for entry in new["undo"] if entry not in old["undo"]]
    said += [f"strike {_undo(entry)}" for entry in old["undo"] if entry not in new["undo"]]
    said += [f"state {new['state']}"] if new["state"] != old["state"] else []
    known = {(span["name"], span["began"]): span["ended"] for span in old["timeline"]}
    for span in new["timeline"]:
        ended = known.get((span["name"], span["began"]), -1)
        if ended != span["ended"]:
            said.append(f"stage {span['name']} {'begins' if span['ended'] is None else 'ends'}")
    return ", ".join(said) or "write the record again"


def _undo(entry: dict[str, Any]) -> str:
    named = (entry[key] for key in ("path", "name", "link", "namespace") if key in entry)
    return " ".join([entry["kind"], *map(str, named)])
