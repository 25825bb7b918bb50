"""A journal that only remembers what it was told to write down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kata_py.resource.undo import Undo


class ListJournal:
    """The entries that stand, all that were ever made, and the stages: (name, began, ended) in nanoseconds."""

    def __init__(self) -> None:
        self.entries: list[Undo] = []
        self.made: list[Undo] = []
        self.stages: list[tuple[str, int, int]] = []
        self._news = asyncio.Event()

    def intend(self, undo: Undo) -> None:
        self.entries.append(undo)
        self.made.append(undo)

    def settled(self, undo: Undo) -> None:
        self.entries.remove(undo)

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        began = time.monotonic_ns()
        try:
            yield
        finally:
            self.stage(stage, began, time.monotonic_ns())

    def stage(self, name: str, began: int, ended: int) -> None:
        self.stages.append((name, began, ended))
        self._news.set()

    async def reached(self, stage: str, timeout: float = 20.0) -> None:
        """Wait until a stage is over.

        Raises:
            TimeoutError: It is not, after that many seconds.
        """
        async with asyncio.timeout(timeout):
            while stage not in (name for name, _, _ in self.stages):
                self._news.clear()
                await self._news.wait()
