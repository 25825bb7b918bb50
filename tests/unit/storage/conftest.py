from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from kata_py.resource.undo import Undo


class MemoryJournal:
    """A journal that remembers what is intended and not yet settled, and all that ever was."""

    def __init__(self) -> None:
        self.open: list[Undo] = []
        self.all: list[Undo] = []

    def intend(self, undo: Undo) -> None:
        self.open.append(undo)
        self.all.append(undo)

    def settled(self, undo: Undo) -> None:
        self.open.remove(undo)

    @contextlib.contextmanager
    def span(self, stage: str) -> Iterator[None]:
        yield

    def stage(self, name: str, began: int, ended: int) -> None:
        pass


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()
