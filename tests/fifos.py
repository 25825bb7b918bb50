"""CRI-O's ends of a process's fifos: opened off the loop, which waits for the shim's, and closed without draining.

Source: containerd `pkg/cri/io/helpers.go` and the `fifo` package, both used by CRI-O.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

_PIECE = 32 << 10  # bytes read at once
_JOIN_TIMEOUT = 5.0  # seconds in which a released opener has ended


class Fifos:
    """The fifos of one process.

    Args:
        paths: They by stream: stdin, stdout, stderr; a stream that is not there has none.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths
        self._ends: dict[str, _End] = {}

    @classmethod
    def make(cls, root: Path, container_id: str, *, stdin: bool = False, terminal: bool = False) -> Fifos:
        """Name new ones below CRI-O's fifo directory, and make them. A terminal has a stderr, too."""
        (root / "io").mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=root / "io"))
        streams = ("stdin", "stdout", "stderr") if stdin else ("stdout", "stderr")
        paths = {stream: directory / f"{container_id}-{stream}" for stream in streams}
        for path in paths.values():
            os.mkfifo(path, 0o700)
        return cls(paths)

    def path(self, stream: str) -> str:
        """A stream's path as a request has it."""
        return str(self.paths.get(stream, ""))

    def open(self, *, terminal: bool = False) -> None:
        """Begin to open our ends. A terminal's stderr has no reader."""
        for stream, path in self.paths.items():
            if not (terminal and stream == "stderr"):
                self._ends[stream] = _End(path, writes=stream == "stdin")

    def output(self, stream: str = "stdout") -> bytes:
        """What was read so far."""
        return bytes(self._ends[stream].data)

    async def until(self, text: bytes, stream: str = "stdout", *, timeout: float = 30.0) -> None:
        """Wait until the text has come out.

        Raises:
            TimeoutError: It did not.
        """
        end = self._ends[stream]
        async with asyncio.timeout(timeout):
            while text not in end.data:
                end.grown.clear()
                await end.grown.wait()

    async def write(self, data: bytes) -> None:
        """Write to stdin, as fast as it is taken."""
        await self._ends["stdin"].write(data)

    def stall(self) -> None:
        """Read no more, and keep the fifos open."""
        for end in self._ends.values():
            end.stall()

    def close_stdin(self) -> None:
        """The client's stdin has ended."""
        self._ends["stdin"].close()

    def close(self) -> None:
        """Close our ends at once; what lies in the fifos stays there."""
        for end in self._ends.values():
            end.close()

    def remove(self) -> None:
        """Close our ends, and remove the fifos with their directory."""
        self.close()
        for directory in {path.parent for path in self.paths.values()}:
            shutil.rmtree(directory, ignore_errors=True)


class _End:
    """One end: a thread opens it, and blocks there until the other side does; then the loop serves it."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.data = bytearray()
        self.grown = asyncio.Event()
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._fd: int | None = None
        self._opened = asyncio.Event()
        self._closed = False
        self._flags = os.O_WRONLY if writes else os.O_RDONLY
        self._opener = threading.Thread(target=self._open, name=f"opener of {path.name}", daemon=True)
        self._opener.start()

    def _open(self) -> None:
        try:
            fd = os.open(self._path, self._flags)
        except OSError:
            return  # removed meanwhile
        self._loop.call_soon_threadsafe(self._serve, fd)

    def _serve(self, fd: int) -> None:
        if self._closed:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        self._fd = fd
        if self._flags == os.O_RDONLY:
            self._loop.add_reader(fd, self._read)
        self._opened.set()

    def _read(self) -> None:
        assert self._fd is not None
        data = os.read(self._fd, _PIECE)
        if not data:
            self._loop.remove_reader(self._fd)
        self.data += data
        self.grown.set()

    async def write(self, data: bytes) -> None:
        await self._opened.wait()
        view = memoryview(data)
        while view:
            assert self._fd is not None
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await _ready(lambda ready: self._loop.add_writer(self._fd, ready))  # type: ignore[arg-type]
                self._loop.remove_writer(self._fd)

    def stall(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
        elif self._opener.is_alive():
            release = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # both ends: nobody waits any more
            self._opener.join(_JOIN_TIMEOUT)
            os.close(release)


async def _ready(add: Callable[[Callable[[], None]], None]) -> None:
    event = asyncio.Event()
    add(event.set)
    await event.wait()
