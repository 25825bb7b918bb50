"""A process in a container, the first one and an exec alike: its states, its streams, its end.

The order at its end is what managers rely on (shim-v2, rules that follow): its outputs are read to their end
and written, for as long as somebody takes them; then `run` returns, the owner settles the status, which
answers every waiter, and queues the exit event; then the streams are closed.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import signal as signals
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import FailedPrecondition, NotFound, SandboxError, StreamCut, Unavailable
from kata_py.sandbox.pump import Pump
from kata_py.sandbox.stdio import Stdio, StdioSpec

logger = logging.getLogger(__name__)

LOST = 255  # the exit status of a process whose end nobody saw, or whose bytes were not all passed on
PATIENCE = 5.0  # seconds that outputs wait for a reader that takes nothing, see `Pump`
_CUT_PAUSE = 0.2  # seconds until a stream that was cut is read on: whoever is between may answer at once
_ENDING = frozenset({signals.SIGKILL, signals.SIGTERM})
_STDIN_PIECE = 1 << 20  # bytes
_OUTPUT_PIECE = 64 << 10  # bytes: what a fifo takes at once


class Status(enum.Enum):
    """Where a process is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.STARTING, Status.STOPPED}),
    Status.STARTING: frozenset({Status.RUNNING, Status.STOPPED}),
    Status.RUNNING: frozenset({Status.PAUSED, Status.STOPPED}),
    Status.PAUSED: frozenset({Status.RUNNING, Status.STOPPED}),
    Status.STOPPED: frozenset({Status.DELETED}),
    Status.DELETED: frozenset(),
}

OpenStdio = Callable[[StdioSpec, str], AbstractAsyncContextManager[Stdio]]
"""A `StdioOpener` that knows its namespace: takes the streams and the container's id."""

ALIVE = frozenset({Status.STARTING, Status.RUNNING, Status.PAUSED})


@dataclass(frozen=True, slots=True)
class Exit:
    """A process's end, the same wherever it is told.

    Attributes:
        status: Its exit code, 128 + the signal that ended it, or `LOST`.
        at: When it ended, in nanoseconds since the epoch.
    """

    status: int
    at: int = field(default_factory=time.time_ns)


class Process:
    """One process.

    Args:
        agent: The agent that runs it.
        open_stdio: Opens the manager's ends of its streams.
        launch: Lets the agent start it.
        container_id: Its container's id.
        exec_id: Its own, empty for the container's first process.
        stdio: Where its streams go.
        terminal_size: Rows and columns of its terminal at the start.
    """

    def __init__(
        self,
        agent: Agent,
        open_stdio: OpenStdio,
        launch: Callable[[], Awaitable[None]],
        *,
        container_id: str,
        exec_id: str,
        stdio: StdioSpec,
        terminal_size: tuple[int, int] | None = None,
    ) -> None:
        self.container_id = container_id
        self.exec_id = exec_id
        self.stdio = stdio
        self.exit: Exit | None = None
        self.was_started = False
        self._agent = agent
        self._open_stdio = open_stdio
        self._launch = launch
        self._terminal_size = terminal_size if stdio.terminal else None
        self._status = Status.CREATED
        self._settled = asyncio.Event()
        self._streams = AsyncExitStack()
        self._open: Stdio | None = None
        self._outputs: list[Pump] = []
        self._stdin_ended = False
        self._torn = False  # whether its status may not say that all went well

    def __str__(self) -> str:
        return f"exec {self.exec_id} of {self.container_id}" if self.exec_id else f"container {self.container_id}"

    @property
    def status(self) -> Status:
        """Where it is in its life."""
        return self._status

    @property
    def _names(self) -> tuple[str, str]:
        return self.container_id, self.exec_id

    def move(self, status: Status) -> None:
        """Enter another state.

        Raises:
            FailedPrecondition: There is no way from the present one.
        """
        if status not in TRANSITIONS[self._status]:
            raise FailedPrecondition(f"{self} is {self._status.value}, it cannot become {status.value}")
        logger.debug("%s: %s -> %s", self, self._status.value, status.value)
        self._status = status

    async def start(self) -> None:
        """Open its streams and let it run.

        Raises:
            FailedPrecondition: It is not in state CREATED.
            SandboxError: It could not be started; it is STOPPED then, and its waiters are answered.
        """
        self.move(Status.STARTING)
        try:
            async with AsyncExitStack() as stack:
                self._open = await stack.enter_async_context(self._open_stdio(self.stdio, self.container_id))
                if self._stdin_ended:
                    self._open.close_stdin()
                await self._launch()
                self._streams = stack.pop_all()
            self.move(Status.RUNNING)
        except BaseException:
            self.settle(Exit(LOST))
            await self.close()
            raise
        self.was_started = True

    async def run(self) -> Exit:
        """Copy its streams until its outputs end, and learn how it ended. To be called once it is started."""
        assert self._open is not None
        self._outputs = self._output_pumps(self._open)
        stdin = asyncio.create_task(self._feed(self._open), name=f"stdin of {self}")
        try:
            if self._terminal_size is not None:
                await self._apply(*self._terminal_size)
            async with asyncio.TaskGroup() as group:
                copies = [group.create_task(pump.run(), name=pump.name) for pump in self._outputs]
            status = await self._agent.wait_process(*self._names)
            exit = Exit(LOST if self._torn else status)
            if all(copy.result() for copy in copies):
                await self._open.drained()
        except SandboxError as error:
            logger.warning("%s: its end was not seen: %s", self, error)
            exit = Exit(LOST)
        finally:
            stdin.cancel()
            await asyncio.wait([stdin])
        return exit

    def settle(self, exit: Exit) -> bool:
        """Set how it ended and answer all waiters; whether this was not known before."""
        if self.exit is not None:
            return False
        self.exit = exit
        self.move(Status.STOPPED)
        self._settled.set()
        return True

    async def wait(self) -> Exit:
        """Wait for its end. Any number of waiters, at any time."""
        await self._settled.wait()
        assert self.exit is not None
        return self.exit

    async def close(self) -> None:
        """Close the manager's ends of its streams."""
        self._open = None
        await self._streams.aclose()

    async def signal(self, number: int) -> None:
        """Signal it; 0 asks whether it is alive.

        Raises:
            FailedPrecondition: It is an exec that was never started.
            NotFound: It has ended. Only that it is to end may be asked again, which is fine.
            Unavailable: The agent is gone. That it is to end may be asked: it does.
        """
        if self._status in (Status.STOPPED, Status.DELETED):
            if number in _ENDING:
                return
            raise NotFound(f"{self}: process already finished")
        if self._status is Status.CREATED and self.exec_id:
            raise FailedPrecondition(f"{self} was never started")
        if number == 0:
            return
        try:
            await self._agent.signal_process(*self._names, number)
        except Unavailable:
            if number not in _ENDING:
                raise
        for pump in self._outputs:
            pump.widen()

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size, in characters; before its start this is what it starts with.

        Raises:
            FailedPrecondition: It has no terminal.
            NotFound: It has ended.
        """
        if not self.stdio.terminal:
            raise FailedPrecondition(f"{self} has no terminal")
        if self._status in (Status.STOPPED, Status.DELETED):
            raise NotFound(f"{self}: process already finished")
        self._terminal_size = (rows, columns)
        if self.was_started:
            await self._agent.resize_terminal(*self._names, rows, columns)

    def end_stdin(self) -> None:
        """End its stdin once all that the manager wrote so far was passed on; before its start, at the start."""
        self._stdin_ended = True
        if self._open is not None:
            self._open.close_stdin()

    def _output_pumps(self, stdio: Stdio) -> list[Pump]:
        streams = [("stdout", self._agent.read_stdout, stdio.write_stdout)]
        if not self.stdio.terminal:
            streams.append(("stderr", self._agent.read_stderr, stdio.write_stderr))
        return [
            Pump(f"{name} of {self}", self._reader(name, read), write, piece=_OUTPUT_PIECE, patience=PATIENCE)
            for name, read, write in streams
        ]

    def _reader(self, name: str, read: Callable[[str, str, int], Awaitable[bytes]]) -> Callable[[], Awaitable[bytes]]:
        count = 0

        async def reader() -> bytes:
            nonlocal count
            while True:
                try:
                    data = await read(*self._names, count)
                    count += len(data)
                    return data
                except StreamCut as error:  # a process whose outputs nobody reads any more would stand still
                    self._cut(name, error)
                    await asyncio.sleep(_CUT_PAUSE)
                except SandboxError as error:  # a stream that is gone has ended; WaitProcess tells what happened
                    logger.debug("%s: reading ended: %s", self, error)
                    return b""

        return reader

    def _cut(self, stream: str, error: StreamCut) -> None:
        """Tell of bytes that may be missing: in the log, and to who waits for the end of what was to pass them on.

        A container whose log has a gap ends as it does: its status is about its work.
        """
        logger.error("%s of %s: %s", stream, self, error)
        self._torn = self._torn or bool(self.exec_id) or stream == "stdin"

    async def _feed(self, stdio: Stdio) -> None:
        count = 0

        async def write(data: bytes) -> None:
            nonlocal count
            try:
                await self._agent.write_stdin(*self._names, data, count)
            except StreamCut as error:
                self._cut("stdin", error)
                if not self.stdio.terminal:  # who types sees what came, and types on
                    stdio.close_stdin()
                    raise
            count += len(data)

        if stdio.has_stdin:
            await Pump(f"stdin of {self}", stdio.read_stdin, write, piece=_STDIN_PIECE, patience=math.inf).run()
        if not self.stdio.terminal:  # the agent would hang up a terminal
            try:
                await self._agent.close_stdin(*self._names)
            except SandboxError as error:
                logger.debug("%s: stdin was closed before: %s", self, error)

    async def _apply(self, rows: int, columns: int) -> None:
        try:
            await self._agent.resize_terminal(*self._names, rows, columns)
        except SandboxError as error:
            logger.warning("%s: its terminal keeps its size: %s", self, error)
