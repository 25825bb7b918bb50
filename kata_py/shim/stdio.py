"""A process's standard streams on the manager's side, opened as the manager named them.

A plain path or `fifo://` is a fifo, `file://` a file that both outputs are appended to, `binary://` and
`binary-v2://` a logger program; an empty path is no stream.
Source: containerd `pkg/cio`, `cmd/containerd-shim-runc-v2/process/io.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.stdio import StdioSpec
from kata_py.shim.logger_binary import LoggerBinary
from kata_py.shim.stream import FileOutput, Input, NoOutput, Output, PipeOutput

_LOGGERS = ("binary", "binary-v2")


class ManagerStdio:
    """The open streams of one process: a `kata_py.sandbox.stdio.Stdio`."""

    def __init__(self, stdin: Input | None, stdout: Output, stderr: Output) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr

    @property
    def has_stdin(self) -> bool:
        """As `Stdio.has_stdin`."""
        return self._stdin is not None

    async def read_stdin(self) -> bytes:
        """As `Stdio.read_stdin`."""
        return await self._stdin.read() if self._stdin is not None else b""

    def close_stdin(self) -> None:
        """As `Stdio.close_stdin`."""
        if self._stdin is not None:
            self._stdin.end()

    async def write_stdout(self, data: bytes) -> None:
        """As `Stdio.write_stdout`."""
        await self._stdout.write(data)

    async def write_stderr(self, data: bytes) -> None:
        """As `Stdio.write_stderr`."""
        await self._stderr.write(data)

    async def drained(self) -> None:
        """As `Stdio.drained`."""
        await asyncio.gather(self._stdout.drained(), self._stderr.drained())


class ManagerStdioOpener:
    """Opens streams: a `kata_py.sandbox.stdio.StdioOpener`, and the one who sees loggers off.

    A logger may take its time to write what it was given, and the exit of its container does not wait for
    that. Leaving the opener's own context does.
    """

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._ending:
                await asyncio.wait(self._ending)
        finally:
            for task in self._ending:
                task.cancel()

    def _see_off(self, program: LoggerBinary, container_id: str) -> None:
        task = asyncio.create_task(program.see_off(), name=f"logger of {container_id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    @asynccontextmanager
    async def __call__(self, spec: StdioSpec, container_id: str, namespace: str) -> AsyncIterator[ManagerStdio]:
        """As `StdioOpener.__call__`."""
        with ExitStack() as stack:
            stdin = None
            if spec.stdin:
                stdin = _open_input(spec.stdin)
                stack.callback(stdin.close)
            url = urlsplit(spec.stdout)
            stdout: Output
            stderr: Output
            if url.scheme in _LOGGERS:
                program = await LoggerBinary.start(url, container_id, namespace)
                stdout, stderr = program.stdout, program.stderr
                stack.callback(self._see_off, program, container_id)
                stack.callback(stderr.close)
                stack.callback(stdout.close)
            else:
                stdout = await _open_output(spec.stdout)
                stack.callback(stdout.close)
                # containerd names a stderr for a terminal too, and nobody opens its other end.
                stderr = await _open_output("" if spec.terminal else spec.stderr)
                stack.callback(stderr.close)
            yield ManagerStdio(stdin, stdout, stderr)


def _open_input(text: str) -> Input:
    scheme, path = _split(text)
    if scheme != "fifo":
        raise InvalidArgument(f"stdin {text!r}: only fifos are known, as PATH or fifo://PATH")
    try:
        return Input.open(path)
    except OSError as error:
        raise InvalidArgument(f"stdin {path}: {error.strerror}") from error


async def _open_output(text: str) -> Output:
    if not text:
        return NoOutput()
    scheme, path = _split(text)
    if scheme not in ("fifo", "file"):
        raise InvalidArgument(
            f"output {text!r}: known are PATH, fifo://PATH, file://PATH and, for stdout, binary://PATH"
        )
    try:
        return await FileOutput.open(path) if scheme == "file" else PipeOutput.open(path)
    except OSError as error:
        raise InvalidArgument(f"output {path}: {error.strerror}") from error


def _split(text: str) -> tuple[str, str]:
    scheme, separator, path = text.partition("://")
    return (scheme, path) if separator else ("fifo", text)
