"""A process in a container, from the client's side of the management API's `/exec`; its other side: `kata_py.shim`."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import quote

from kata_py.cli.errors import CtlError, ShimError
from kata_py.cli.shim import Shim

PROTOCOL = "kata-py-exec"
PIECE = 256 << 10  # bytes of stdin in a frame

_STDOUT, _STDERR, _EXIT, _ERROR = 1, 2, 3, 4
_FRAME_MAX = 16 << 20  # bytes; a guest's agent sends one MiB
_WORDS_MAX = 4096  # bytes of its stderr that are kept


class GuestProcess(io.RawIOBase):
    """A process; what is written goes to its stdin, what is read is its stdout. To be used as a context.

    Args:
        shim: The shim of its sandbox.
        container: The container's id, or the beginning of it.
        args: The program and its arguments.

    Raises:
        ShimError: There is no such container, or the shim cannot be reached.
    """

    def __init__(self, shim: Shim, container: str, args: Sequence[str]) -> None:
        self.stderr = b""
        self._status: int | None = None
        self._error = ""
        self._rest = b""
        self._socket, self._reader = shim.upgraded(
            f"/exec?container={quote(container, safe='')}", json.dumps(list(args)).encode(), PROTOCOL
        )
        self._socket.settimeout(None)  # a copy takes as long as it takes; the shim watches the guest
        self._args = args
        self._draining: threading.Thread | None = None

    def __enter__(self) -> GuestProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever reads from it hears of its end
        if self._draining is not None:
            self._draining.join()
        self._reader.close()
        self._socket.close()

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes of its stdout, or all of it; fewer at its end."""
        parts = [self._rest]
        length = len(self._rest)
        while (size < 0 or length < size) and (data := self._next()):
            parts.append(data)
            length += len(data)
        whole = b"".join(parts)
        size = len(whole) if size < 0 else size
        self._rest = whole[size:]
        return whole[:size]

    def write(self, data: bytes) -> int:  # type: ignore[override]  # of whatever is a buffer
        """Pass on to its stdin.

        Raises:
            OSError: It has ended.
        """
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._socket.sendall(struct.pack(">I", len(piece)) + piece)
        return len(data)

    def listen(self) -> None:
        """Take what it says while it is written to, so that neither waits for the other; its stdout is for nobody."""
        self._draining = threading.Thread(target=self._drain, name="outputs of a guest's process", daemon=True)
        self._draining.start()

    def end_stdin(self) -> None:
        """End its stdin.

        Raises:
            OSError: It has ended.
        """
        self._socket.sendall(struct.pack(">I", 0))

    def wait(self) -> int:
        """Wait for its end, and return its status.

        Raises:
            CtlError: It could not be run.
            ShimError: The connection broke.
        """
        if self._draining is not None:
            self._draining.join()
        self._drain()
        if self._error:
            raise CtlError(f"{self._args[0]} cannot be run in the container: {self._error}", self._hint())
        if self._status is None:
            raise ShimError("the connection broke before the end", "is the pod still running? try: kata-ctl ps")
        return self._status

    def succeed(self) -> None:
        """As `wait`.

        Raises:
            CtlError: It failed, or could not be run.
        """
        if status := self.wait():
            said = self.stderr.decode(errors="replace").strip() or f"status {status}"
            raise CtlError(f"{self._args[0]} failed in the container: {said}")

    def _hint(self) -> str:
        if "blocked by policy" in self._error:
            return "the guest's policy keeps the host from running programs in it (ExecProcessRequest)"
        return f"the container needs a program {self._args[0]} for it"

    def _drain(self) -> None:
        while self._next():
            pass

    def _next(self) -> bytes:
        """The next bytes of its stdout; empty at the end of all."""
        while self._status is None and not self._error:
            try:
                head = self._reader.read(5)
                if len(head) < 5:
                    return b""
                kind, length = struct.unpack(">BI", head)
                data = self._reader.read(length) if length <= _FRAME_MAX else b""
            except (OSError, ValueError):  # the connection broke, or was closed
                return b""
            if len(data) < length:
                return b""
            if kind == _STDOUT:
                return data
            if kind == _STDERR:
                self.stderr = (self.stderr + data)[-_WORDS_MAX:]
            elif kind == _EXIT and data:
                self._status = data[0]
            elif kind == _ERROR:
                self._error = data.decode(errors="replace") or "no reason is told"
        return b""
