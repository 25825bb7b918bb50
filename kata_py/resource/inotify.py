"""News of a directory's entries, from the kernel. Source: inotify(7); there is nothing of it in Python's library."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

# Source: Linux `include/uapi/linux/inotify.h`.
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _DELETE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400
_ONLYDIR = 0x01000000

_ENTRIES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
_BUFFER = 1 << 16  # bytes: what is read at once, and thrown away

_libc = ctypes.CDLL(None, use_errno=True)


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever an entry of the directory was made, removed or renamed; whoever waits clears it.

    Raises:
        OSError: It is no directory, or the host's bound on watches is reached (fs.inotify.max_user_instances).
    """
    news = asyncio.Event()
    descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"inotify: {os.strerror(ctypes.get_errno())}")
    try:
        if _libc.inotify_add_watch(descriptor, os.fsencode(directory), _ENTRIES | _ONLYDIR) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}", str(directory))

        def take() -> None:
            os.read(descriptor, _BUFFER)
            news.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, take)
        try:
            yield news
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
