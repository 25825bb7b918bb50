"""crun, the OCI runtime: the calls we make of it, and its errors in words.

Each call has a directory of its own under the work directory for what is handed over by path: pid file, log,
process document, console socket. Its path is short because a Unix socket's must be.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kata_agent.container import stdio
from kata_agent.container.reaper import Child, Reaper
from kata_agent.container.stdio import Stdio
from kata_agent.errors import AgentError
from kata_agent.trace import span

CALL_TIMEOUT = 50.0  # seconds; hosts give a call 60
_STARTED_AT_ONCE = 20  # execs under way at the same time: each is a crun of a few MiB


class CrunError(AgentError):
    """crun refused; the message is its own."""


class Crun:
    """Calls crun. What it starts is adopted by the reaper, with its streams in the agent's hands.

    Attributes:
        reaper: Who collects crun and what it leaves behind.

    Args:
        reaper: As the attribute.
        work: Directory for the calls' files; made when needed.
        options: Global options, such as `--root`.
        pipe_capacity: Bytes an output pipe holds; 0 is the kernel's default.
    """

    def __init__(self, reaper: Reaper, work: Path, *, options: Sequence[str] = (), pipe_capacity: int = 0) -> None:
        self.reaper = reaper
        self._work = work
        self._options = options
        self._pipe_capacity = pipe_capacity
        self._serial = itertools.count(1)
        self._slots = asyncio.Semaphore(_STARTED_AT_ONCE)

    async def create(self, container_id: str, bundle: Path, *, terminal: bool, no_pivot: bool) -> tuple[Child, Stdio]:
        """Create a container from its bundle: everything but the start of the program.

        Args:
            container_id: Its id.
            bundle: Directory with `config.json` and the root file system.
            terminal: What the spec's `process.terminal` says.
            no_pivot: The root file system of this machine cannot be pivoted away from.

        Raises:
            CrunError: crun refused; nothing of the container is left.
        """
        with self._call() as call:
            options = ["--bundle", str(bundle), *(["--no-pivot"] if no_pivot else [])]
            try:
                return await self._begin(call, "create", options, container_id, terminal)
            except CrunError:
                with contextlib.suppress(CrunError):  # what a crun that was killed has made
                    await self.delete(container_id)
                raise

    async def exec(self, container_id: str, process: Mapping[str, object], *, terminal: bool) -> tuple[Child, Stdio]:
        """Start one more process in a running container.

        Args:
            container_id: The container's id.
            process: The OCI process document, complete.
            terminal: What its `terminal` says.

        Raises:
            CrunError: crun refused: no such program, the container does not run.
        """
        with self._call() as call:
            document = call / "process.json"
            document.write_text(json.dumps(process))
            return await self._begin(call, "exec", ["--detach", "--process", str(document)], container_id, terminal)

    async def start(self, container_id: str) -> None:
        """Let a created container's program begin.

        Raises:
            CrunError: crun refused.
        """
        await self._command("start", container_id)

    async def update(self, container_id: str, resources: Mapping[str, object]) -> None:
        """Give a container other resources.

        Args:
            container_id: Its id.
            resources: The spec's `linux.resources`, of which only what is there changes.

        Raises:
            CrunError: crun refused.
        """
        with self._call() as call, _null() as null:
            document = call / "resources.json"
            document.write_text(json.dumps(resources))
            await self._run(call, ("update", "--resources", str(document), container_id), (null, null, null))

    async def delete(self, container_id: str) -> None:
        """Kill what runs in the container and remove crun's state, cgroup included; gone already is fine.

        Raises:
            CrunError: crun could not.
        """
        await self._command("delete", "--force", container_id)

    async def _command(self, *arguments: str) -> None:
        with self._call() as call, _null() as null:
            await self._run(call, arguments, (null, null, null))

    async def _begin(
        self, call: Path, verb: str, options: Sequence[str], container_id: str, terminal: bool
    ) -> tuple[Child, Stdio]:
        pid_file = call / "pid"
        arguments = [verb, *options, "--pid-file", str(pid_file)]
        with self.reaper.expecting(), contextlib.ExitStack() as stack:
            if terminal:
                console = stack.enter_context(_console_socket(call / "console"))
                null = stack.enter_context(_null())
                await self._run(
                    call, [*arguments, "--console-socket", str(call / "console"), container_id], (null,) * 3
                )
                streams = stdio.terminal(_receive_master(console))
            else:
                streams, ends = stack.enter_context(stdio.pipes(self._pipe_capacity))
                await self._run(call, [*arguments, container_id], ends)
            try:
                child = self.reaper.adopt(int(pid_file.read_text()))
            except (OSError, ValueError) as error:
                streams.close()
                raise CrunError(f"crun {verb} left no process behind: {error}") from error
        child.exited.add_done_callback(lambda _: streams.process_ended())
        return child, streams

    async def _run(self, call: Path, arguments: Sequence[str], streams: Sequence[int]) -> None:
        log = call / "log"
        argv = ["crun", *self._options, "--cgroup-manager=cgroupfs", f"--log={log}", *arguments]
        with span(f"crun {arguments[0]}"):
            try:
                async with self._slots:
                    code = await self.reaper.run(argv, streams=streams, timeout=CALL_TIMEOUT)
            except (OSError, TimeoutError) as error:
                raise CrunError(f"crun {arguments[0]}: {error}{_said(log)}") from error
            if code != 0:
                raise CrunError(_complaint(log) or f"crun {arguments[0]} ended with status {code}")

    @contextlib.contextmanager
    def _call(self) -> Iterator[Path]:
        directory = self._work / str(next(self._serial))
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            for entry in directory.iterdir():
                entry.unlink()
            directory.rmdir()


@contextlib.contextmanager
def _null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _console_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen(1)
        yield listener


def _receive_master(listener: socket.socket) -> int:
    # crun connects and sends before it ends, so both lie ready; SCM_RIGHTS, one descriptor.
    try:
        connection, _ = listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        return descriptors[0]
    except (OSError, IndexError) as error:
        raise CrunError(f"crun sent no terminal: {error}") from error


def _complaint(log: Path) -> str:
    """What crun wrote into its log, on one line; names in the quotes that others use."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "; ".join(line.replace("`", '"') for line in text.splitlines() if line)


def _said(log: Path) -> str:
    complaint = _complaint(log)
    return f"; crun said: {complaint}" if complaint else ""
