"""A sandbox's record on disk: what was done to the host, how to undo it, and how long each stage took.

Everything is written before it is done, beside the old record and renamed over it, so that a kill at any
point leaves a whole record that names all there is to undo. `/run` forgets itself when the host goes down,
so nothing is flushed to a disk. The `delete` command imports this module in a fresh process with five
seconds to live: standard library only.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kata_py.resource import file, process, undo
from kata_py.resource.undo import Undo
from kata_py.sandbox.errors import AlreadyExists, FailedPrecondition, NotFound, SandboxError
from kata_py.sandbox.timeline import Span

ROOT = Path("/run/vc/sbs")
VERSION = 1
TIMELINE_LIMIT = 200  # spans; the record is written anew with each change
TIMELINE_START = 50  # spans of them from the beginning: the start of the sandbox
UNWIND_TIMEOUT = 4.0  # seconds; containerd gives the delete binary five

_RECORD = "record.json"  # beside which lies at most what a kill left of its next version
_BEGINNINGS = 3  # times that a sweep may get in the way


class RecordError(SandboxError):
    """A record that cannot be read: damaged, or of another version."""


class State(enum.StrEnum):
    """Where a sandbox is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Shim:
    """The process that serves the sandbox; its start time tells it from a later one with the same pid."""

    pid: int
    start_time: int

    @classmethod
    def current(cls) -> Shim:
        """This process."""
        return cls(os.getpid(), process.start_time(os.getpid()) or 0)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return process.start_time(self.pid) == self.start_time


@dataclass(frozen=True, slots=True)
class Leftover:
    """An entry that could not be undone, and why. It stays on record."""

    undo: Undo
    cause: str

    def __str__(self) -> str:
        return f"{self.undo}: {self.cause}"


class Record:
    """One sandbox's record; a `kata_py.resource.journal.Journal`. Safe to use from several threads.

    Made by `create` or `load`. The attributes are the last state written; `program` is the shim's, links followed: it
    tells which of several installed versions the sandbox is of.
    """

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self._directory = directory
        self._lock = threading.RLock()
        try:
            self.id: str = content["sandbox"]
            self.namespace: str = content["namespace"]
            self.bundle: str = content["bundle"]
            self.shim = Shim(**content["shim"])
            self.program: str = content.get("program", "")
            self._state = State(content["state"])
            self._undo = [undo.from_json(entry) for entry in content["undo"]]
            self._timeline = [Span(**span) for span in content["timeline"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{directory / 'record.json'}: {error!r}") from error

    @classmethod
    def create(cls, id: str, *, namespace: str, bundle: str | Path, root: Path = ROOT) -> Record:
        """Begin the record of a sandbox that this process serves.

        Args:
            id: The sandbox's id, checked before.
            namespace: The manager's namespace.
            bundle: The bundle directory.
            root: Where the records of all sandboxes lie.

        Raises:
            AlreadyExists: A sandbox of this id is on record.
            OSError: The record cannot be written.
        """
        directory = root / id
        record = cls(
            directory,
            {
                "sandbox": id, "namespace": namespace, "bundle": str(bundle), "shim": asdict(Shim.current()),
                "program": os.path.realpath(sys.argv[0]), "state": State.CREATING, "undo": [], "timeline": [],
            },
        )  # fmt: skip
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise AlreadyExists(f"sandbox {id} is already on record in {directory}") from None
        for attempt in reversed(range(_BEGINNINGS)):
            try:
                record._write()
            except FileNotFoundError:  # a sweep took the empty directory for one that a kill has left
                if not attempt:
                    raise
                directory.mkdir(mode=0o700, exist_ok=True)
            except OSError:
                directory.rmdir()
                raise
            else:
                break
        return record

    @classmethod
    def load(cls, id: str, *, root: Path = ROOT) -> Record:
        """Read the record of a sandbox, of whichever process.

        Raises:
            NotFound: There is none.
            RecordError: It is damaged, or of another version.
        """
        directory = root / id
        try:
            content = json.loads((directory / _RECORD).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            # A kill between the directory and the first write, or amid its removal: nothing was done, or is left.
            if directory.is_dir():
                return cls(directory, _EMPTY | {"sandbox": id})
            raise NotFound(f"no sandbox {id} on record in {root}") from None
        except ValueError as error:
            raise RecordError(f"{directory / 'record.json'}: {error}") from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise RecordError(f"{directory / 'record.json'}: not a record of version {VERSION}")
        return cls(directory, content)

    @classmethod
    @contextlib.contextmanager
    def claimed(cls, id: str, *, root: Path = ROOT) -> Iterator[Record]:
        """Read the record of a sandbox whose shim is gone, to unwind it, which nobody else does meanwhile.

        Of two at it the slower would undo what a new sandbox of this id has made since, at the same places.

        Raises:
            NotFound: There is none.
            RecordError: As `load`.
            FailedPrecondition: Another process is at it.
        """
        directory = root / id
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                same = os.path.samestat(os.fstat(descriptor), directory.stat())
            except BlockingIOError:
                raise FailedPrecondition(f"another process removes sandbox {id} right now") from None
            except (FileNotFoundError, NotADirectoryError):
                same = False
            if not same:
                raise NotFound(f"no sandbox {id} on record in {root}")
            yield cls.load(id, root=root)

    @property
    def directory(self) -> Path:
        """Where the record lies; the sandbox's own files may lie beside it."""
        return self._directory

    @property
    def begun(self) -> bool:
        """Whether it was ever written, and not yet removed in part; if not, nothing was done, or all is undone."""
        return bool(self.bundle)

    @property
    def state(self) -> State:
        """Where the sandbox is in its life."""
        return self._state

    @property
    def undo(self) -> tuple[Undo, ...]:
        """What is to be undone, oldest first."""
        return tuple(self._undo)

    @property
    def timeline(self) -> tuple[Span, ...]:
        """The stages so far, in the order they began."""
        return tuple(self._timeline)

    def move(self, state: State) -> None:
        """Write down the sandbox's next state."""
        with self._lock:
            self._state = state
            self._note()

    def intend(self, undo: Undo) -> None:
        """As `Journal.intend`."""
        with self._lock:
            self._undo.append(undo)
            try:
                self._write()
            except OSError:
                self._undo.pop()
                raise

    def settled(self, undo: Undo) -> None:
        """As `Journal.settled`; an entry that is not there was struck before."""
        with self._lock:
            for index in reversed(range(len(self._undo))):
                if self._undo[index] == undo:
                    del self._undo[index]
                    self._note()
                    return

    @contextlib.contextmanager
    def span(self, stage: str, *, began: int | None = None) -> Iterator[None]:
        """As `Journal.span`; it may have begun before, in monotonic nanoseconds.

        The beginning is written too, so that a kill shows the stage it fell into.
        """
        with self._lock:
            span = Span(stage, time.monotonic_ns() if began is None else began)
            self._add(span)
            self._note()
        failed = True
        try:
            yield
            failed = False
        finally:
            with self._lock:
                index = self._timeline.index(span)  # it is there still: only what has ended is dropped
                self._timeline[index] = replace(span, ended=time.monotonic_ns(), failed=failed)
                self._note()

    def stage(self, name: str, began: int, ended: int) -> None:
        """As `Journal.stage`."""
        with self._lock:
            self._add(Span(name, began, ended))
            self._note()

    def unwind(self, *, timeout: float = UNWIND_TIMEOUT) -> list[Leftover]:
        """Undo all that is on record, newest first, and at last remove the record itself.

        Idempotent, and safe to be killed in. A failure does not stop the rest.

        Args:
            timeout: Seconds after which no further entry is begun.

        Returns:
            What could not be undone; it stays on record, and so does the record.
        """
        deadline = time.monotonic() + timeout
        left: list[Leftover] = []
        for entry in reversed(self.undo):
            if time.monotonic() > deadline:
                left.append(Leftover(entry, f"not begun within {timeout:g} s"))
                continue
            try:
                entry.perform()
            except (OSError, process.KillError) as error:
                left.append(Leftover(entry, str(error)))
            else:
                self.settled(entry)
        if not left:
            with self._lock, contextlib.suppress(OSError):
                self._remove()
        return left

    def _remove(self) -> None:
        """Remove the directory: at last the record, and never one that somebody begins there meanwhile."""
        for path in self._directory.iterdir():
            if path.name != _RECORD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.begun:
            (self._directory / _RECORD).unlink()
        self._directory.rmdir()

    def _add(self, span: Span) -> None:
        """Add a span. A pod whose containers come and go for months keeps its start and the latest of them."""
        self._timeline.append(span)
        if len(self._timeline) > TIMELINE_LIMIT:
            for index in range(TIMELINE_START, len(self._timeline)):
                if self._timeline[index].ended is not None:
                    del self._timeline[index]
                    return

    def _note(self) -> None:
        # Only an intention must be on disk before the act. The rest may come late or, once the record is
        # unwound, not at all: an entry struck too late is undone twice, which is harmless.
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        content = {
            "version": VERSION,
            "sandbox": self.id,
            "namespace": self.namespace,
            "bundle": self.bundle,
            "shim": asdict(self.shim),
            "program": self.program,
            "state": self._state,
            "undo": [undo.to_json(entry) for entry in self._undo],
            "timeline": [asdict(span) for span in self._timeline],
        }
        file.replace(str(self._directory / _RECORD), json.dumps(content, indent=1))


def program_of(id: str, *, root: Path = ROOT) -> str:
    """The program of the shim that wrote a sandbox's record, of whichever version; empty if it does not tell."""
    try:
        content = json.loads((root / id / "record.json").read_bytes())
    except (OSError, ValueError):
        return ""
    program = content.get("program") if isinstance(content, dict) else None
    return program if isinstance(program, str) else ""


_EMPTY: dict[str, Any] = {
    "namespace": "", "bundle": "", "shim": {"pid": 0, "start_time": 0},
    "state": State.CREATING, "undo": [], "timeline": [],
}  # fmt: skip
