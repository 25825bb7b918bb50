"""Whose node it is: in a rolling update two adaptors serve it for a while, and not all that they do may be done twice.

The earlier one holds a lock until it ends, whatever it ends by. Source: flock(2).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from kata_caa.errors import AdaptorError
from kata_py.resource.blocking import off_loop


@asynccontextmanager
async def tenure(directory: Path) -> AsyncIterator[asyncio.Event]:
    """Yields an event that is set as soon as no earlier adaptor uses the directory any more: at once, if none does.

    Args:
        directory: What the adaptors share, and are told apart by; made if it is not there.

    Raises:
        AdaptorError: It cannot be used.
    """
    alone = asyncio.Event()
    try:
        descriptor = await off_loop(_open, directory)
    except OSError as error:
        raise AdaptorError(f"{directory} cannot be used: {error.strerror}; name another one by -pods-dir") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone.set()
        except BlockingIOError:
            # Nothing ends a wait for a lock; so the thread is one that nobody waits for, with a descriptor of its own.
            arguments = os.dup(descriptor), asyncio.get_running_loop(), alone
            threading.Thread(target=_wait, args=arguments, name="tenure", daemon=True).start()
        yield alone
    finally:
        os.close(descriptor)


def _open(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _wait(descriptor: int, loop: asyncio.AbstractEventLoop, alone: asyncio.Event) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(alone.set)
    finally:
        os.close(descriptor)
