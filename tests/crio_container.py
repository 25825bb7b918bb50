"""What CRI-O knows of a container, and its end of the shim's log."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kata_protos.task_types_pb2 import Status
from tests.crio_calls import Task
from tests.fifos import Fifos


@dataclass
class State:
    """What CRI-O knows of a container.

    Attributes:
        status: As State told.
        pid: As Create told.
        start_time: When that process began, in clock ticks since boot.
        exit_code: As State told, once it has ended.
        finished: When it ended, in nanoseconds since the epoch.
        oom_killed: Whether the shim left the marker in the bundle.
    """

    status: int = Status.UNKNOWN
    pid: int = 0
    start_time: int = 0
    exit_code: int = 0
    finished: int = 0
    oom_killed: bool = False


@dataclass
class Container:
    """A container that CRI-O has made files for."""

    id: str
    pod: str
    spec: dict[str, Any]
    bundle: Path
    rootfs: Path
    io: Fifos | None = None
    log: Log | None = None
    task: Task | None = None
    state: State = field(default_factory=State)
    waiter: asyncio.Task[None] | None = None

    @property
    def output(self) -> Fifos:
        assert self.io is not None
        return self.io


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What ExecSync answers."""

    exit_code: int
    stdout: bytes
    stderr: bytes = b""


class Log:
    """CRI-O's end of a bundle's log: opened before the shim's start, copied to its own stderr."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o700)
        self.lines = bytearray()
        self._fd: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        assert self._fd is not None
        data = os.read(self._fd, 1 << 16)
        self.lines += data
        if not data:  # no shim has it open: another may, and CRI-O's copy has ended
            asyncio.get_running_loop().remove_reader(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
