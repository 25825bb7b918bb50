"""The agent's log for a reader on the host: one JSON object per line.

Records wait in a queue with a bound until a reader takes them; what does not fit is dropped, the oldest first,
and counted. So a reader that stalls, or never comes, costs a little memory and stops nothing.
Source of the form: kata-containers' `src/libs/logging/src/lib.rs`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections import deque
from typing import Final, cast

from kata_agent import __version__, subject

_CAPACITY: Final = 256 << 10  # bytes that wait
_SPACE: Final = 512  # bytes; a reader has nothing to say
_LEVELS: Final = {
    logging.CRITICAL: "CRIT",
    logging.ERROR: "ERRO",
    logging.WARNING: "WARN",
    logging.INFO: "INFO",
    logging.DEBUG: "DEBG",
}


class LogPort(logging.Handler):
    """Keeps records for a reader and gives them to it; a second reader is turned away while there is one.

    Args:
        loop: Runs the readers.
        capacity: Bytes that may wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int = _CAPACITY) -> None:
        super().__init__()
        self._loop = loop
        self._capacity = capacity
        self._guard = threading.Lock()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._waking = False
        self._reader: _Reader | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; from any thread, and never waiting."""
        try:
            line = line_of(record)
        except Exception:
            self.handleError(record)
            return
        with self._guard:
            self._lines.append(line)
            self._size += len(line)
            while self._size > self._capacity and len(self._lines) > 1:
                self._size -= len(self._lines.popleft())
                self._dropped += 1
            wake, self._waking = not self._waking, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass  # the loop has ended, and with it every reader

    def accept(self) -> asyncio.BaseProtocol:
        """The protocol for a new connection."""
        return _Reader(self)

    def attach(self, reader: _Reader) -> bool:
        """A reader is there; returns whether it is the one."""
        if self._reader is not None:
            return False
        self._reader = reader
        return True

    def detach(self, reader: _Reader) -> None:
        """A reader is gone."""
        if self._reader is reader:
            self._reader = None

    def take(self) -> bytes | None:
        """The next line, if there is one."""
        with self._guard:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = f"{dropped} records were dropped: nobody read them"
                return line_of(logging.makeLogRecord({"name": __name__, "levelno": logging.WARNING, "msg": text}))
            if not self._lines:
                return None
            line = self._lines.popleft()
            self._size -= len(line)
            return line

    def _wake(self) -> None:
        with self._guard:
            self._waking = False
        if self._reader is not None:
            self._reader.pass_on()


class _Reader(asyncio.BufferedProtocol):
    def __init__(self, port: LogPort) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._space = bytearray(_SPACE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._port.attach(self):
            self.pass_on()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._port.detach(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._space)

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.pass_on()

    def pass_on(self) -> None:
        """Give the reader what waits, as far as it takes it."""
        while self._transport is not None and not self._paused:
            line = self._port.take()
            if line is None:
                return
            self._transport.write(line)


def line_of(record: logging.LogRecord) -> bytes:
    """A record in its form; `extra={"fields": {...}}` adds keys of its own."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    fields: dict[str, object] = {
        "msg": record.getMessage(),
        "level": _LEVELS.get(record.levelno, "INFO"),
        "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z",
        "version": __version__,
        "subsystem": record.name.removeprefix("kata_agent."),
        "pid": str(os.getpid()),
        "name": "kata-agent",
        "source": "agent",
        **subject.fields(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        fields["backtrace"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(fields, ensure_ascii=False, default=str).encode(errors="replace") + b"\n"
