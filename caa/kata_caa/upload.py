"""A disk's way into a cloud, with what is told of it meanwhile."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kata_caa import disk
from kata_caa.disk import Disk
from kata_caa.errors import SettingError
from kata_caa.providers.api import ImageStore, StoredImage

_MIB = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")  # with the digest, what all clouds take; Azure has 80 at most
_TERMINAL_STEP, _LOG_STEP = 0.2, 5.0  # seconds from line to line


async def upload(store: ImageStore, path: Path, stem: str, machine: str, out: TextIO) -> StoredImage:
    """Read a disk, and upload it unless it is there. SIGINT and SIGTERM cancel it, and it cleans up.

    Args:
        store: The cloud's images.
        path: The disk.
        stem: What the image's name begins with.
        machine: Which machines the disk is for.
        out: Where is told how far it is.

    Raises:
        SettingError: The name cannot be one.
        DiskError: The disk cannot be read, or the cloud takes no such disk.
        ProviderError: The cloud refuses.
    """
    if not _NAME.fullmatch(stem):
        raise SettingError(f"-name: {stem!r} is not of letters, digits, - and _, 60 of them at most")
    with _terminated():
        read = await _examined(path, machine, Meter("reading", out).tell)
        meter = Meter("uploading", out)
        image = await store.upload(read, stem, meter.tell)
    print(f"{image.name}: {'was there already' if image.found else 'uploaded'}, sha256 {read.digest}", file=out)
    return image


async def _examined(path: Path, machine: str, progress: disk.Progress) -> Disk:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(disk.examine, path, machine, progress, stop.is_set)
    finally:
        stop.set()


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM do what SIGINT does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class Meter:
    """Tells how far something is: percent and MiB/s, on a terminal in one line.

    Args:
        what: `uploading`.
        out: Where it is written.
        clock: Seconds.
    """

    def __init__(self, what: str, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._out = out
        self._clock = clock
        self._begun = clock()
        self._last = float("-inf")
        self._terminal = out.isatty()

    def tell(self, done: int, total: int) -> None:
        """Told how many bytes are done, of how many; it writes at first, now and then, and at the end."""
        now = self._clock()
        step = _TERMINAL_STEP if self._terminal else _LOG_STEP
        if done < total and now - self._last < step:
            return
        self._last = now
        rate = done / _MIB / max(now - self._begun, 0.001)
        text = f"{self._what}: {100 * done // max(total, 1)} % of {total / _MIB:.0f} MiB, {rate:.1f} MiB/s"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="\n" if done >= total else "", file=self._out, flush=True)
        else:
            print(text, file=self._out, flush=True)
