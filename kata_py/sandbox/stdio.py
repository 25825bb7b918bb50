"""The manager's ends of a process's standard streams, as the sandbox sees them.

The shim implements these over fifos, files and logger binaries; tests over memory.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StdioSpec:
    """Where a process's streams go, as the manager named them: paths, `fifo://`, `file://`, `binary://` or empty.

    Source: containerd `api/runtime/task/v2/shim.proto`, fields of Create and Exec.
    """

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Stdio(Protocol):
    """One process's streams, open on the manager's side. None of the calls blocks the event loop."""

    @property
    def has_stdin(self) -> bool:
        """Whether the manager gave a stdin; without one the process's stdin is closed at once."""

    async def read_stdin(self) -> bytes:
        """The next bytes, at most 32 KiB; empty at the end, which only `close_stdin` brings about."""

    def close_stdin(self) -> None:
        """End stdin: `read_stdin` still gives what already lies in the fifo, then the end."""

    async def write_stdout(self, data: bytes) -> None:
        """Pass bytes on; returns when the manager's side took them. A side that is gone swallows them."""

    async def write_stderr(self, data: bytes) -> None:
        """As `write_stdout`."""

    async def drained(self) -> None:
        """Wait, a few seconds at most, until the manager has read all that was written."""


class StdioOpener(Protocol):
    """Opens streams; leaving the context closes them, whatever a stalled reader does."""

    def __call__(self, spec: StdioSpec, container_id: str, namespace: str) -> AbstractAsyncContextManager[Stdio]:
        """Open the streams.

        Raises:
            SandboxError: A path does not exist or has an unknown form; the message names it.
        """
