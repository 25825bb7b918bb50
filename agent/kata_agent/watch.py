"""A file of the kernel's that tells of changes by itself: in cgroupfs, sysfs, or a process's table of mounts."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


class Watch:
    """Calls back when the file's content may have changed; a context manager.

    The kernel announces a change as an exceptional condition, poll(2)'s POLLPRI, while the file is readable at any
    time. So it is polled behind an epoll instance of its own, which becomes readable for that condition alone.

    Args:
        path: The file.
        changed: What is called, from the event loop. Once soon after the beginning as well.

    Raises:
        OSError: There is no such file.
    """

    def __init__(self, path: Path, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._file, select.EPOLLPRI | select.EPOLLET)
        self._loop.add_reader(self._epoll.fileno(), self._notice)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> str:
        """The content now.

        Raises:
            OSError: What it tells of is gone.
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        pieces = []
        while piece := os.read(self._file, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="surrogateescape")

    def close(self) -> None:
        """Watch no longer; again is fine."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            os.close(self._file)

    def _notice(self) -> None:
        self._epoll.poll(0)
        self._changed()
