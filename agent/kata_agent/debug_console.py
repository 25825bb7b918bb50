"""A shell for who debugs the guest: on a terminal of its own for each connection, or on the guest's console.

Source: kata-containers' `src/agent/src/console.rs`; `kata-runtime exec` is the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Final, cast

from kata_agent import linux
from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from kata_agent.container.reaper import Child, Reaper

_LOG = logging.getLogger(__name__)

SHELLS: Final = ("/run/kata-extensions/devkit/bin/devkit-sh", "/bin/bash", "/bin/sh")

_SPACE: Final = 16 << 10  # bytes read at once
_PAUSE: Final = 1.0  # seconds until a shell on the console that has ended is followed by the next


def shell() -> str:
    """The first of the shells that this guest has.

    Raises:
        AgentError: It has none.
    """
    for path in SHELLS:
        if os.access(path, os.X_OK):
            return path
    raise AgentError(f"no shell for the debug console: none of {', '.join(SHELLS)}")


class DebugConsole:
    """Gives each connection a shell.

    Args:
        reaper: Starts the shells.
        program: The shell.
    """

    def __init__(self, reaper: Reaper, program: str) -> None:
        self.reaper = reaper
        self.program = program

    def accept(self) -> asyncio.BaseProtocol:
        """The protocol for a new connection."""
        return _Session(self)

    async def serve(self, device: str = "/dev/console") -> None:
        """Keep a shell on a device, until cancelled."""
        while True:
            child = self.reaper.spawn([self.program, "-i"], terminal=device)
            try:
                await child.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.signal(signal.SIGHUP)
            await asyncio.sleep(_PAUSE)


class _Session(asyncio.BufferedProtocol):
    """One connection and its shell: what the one says the other gets, each no faster than it takes it."""

    def __init__(self, console: DebugConsole) -> None:
        self._console = console
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._space = bytearray(_SPACE)
        self._rest = memoryview(b"")  # typed, and not yet taken by the terminal
        self._master = -1
        self._child: Child | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        try:
            self._master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            terminal = linux.unlock_terminal(self._master)
            self._child = self._console.reaper.spawn([self._console.program, "-i"], terminal=terminal)
        except OSError as error:
            _LOG.error("no shell for the debug console: %s", error)
            self._transport.close()
            return
        _LOG.info("debug console: shell %d begins", self._child.pid)
        self._child.exited.add_done_callback(self._ended)
        self._loop.add_reader(self._master, self._said)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._close_terminal()
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.signal(signal.SIGHUP)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._space)

    def buffer_updated(self, nbytes: int) -> None:
        self._rest = memoryview(bytes(self._space[:nbytes]))
        self._type()

    def pause_writing(self) -> None:
        if self._master >= 0:
            self._loop.remove_reader(self._master)

    def resume_writing(self) -> None:
        if self._master >= 0:
            self._loop.add_reader(self._master, self._said)

    def eof_received(self) -> None:
        """The other side has closed: so do we."""

    def _type(self) -> None:
        if self._master < 0 or self._transport is None:
            return
        self._loop.remove_writer(self._master)
        try:
            self._rest = self._rest[os.write(self._master, self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._transport.close()
            return
        if self._rest:
            self._transport.pause_reading()
            self._loop.add_writer(self._master, self._type)
        else:
            self._transport.resume_reading()

    def _said(self) -> None:
        try:
            data = os.read(self._master, _SPACE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # the terminal's last user is gone
        if self._transport is not None:
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
        if not data:
            self._close_terminal()

    def _ended(self, exited: asyncio.Future[int]) -> None:
        _LOG.info("debug console: shell ended with status %d", exited.result())

    def _close_terminal(self) -> None:
        if self._master >= 0:
            self._loop.remove_reader(self._master)
            self._loop.remove_writer(self._master)
            os.close(self._master)
            self._master = -1
