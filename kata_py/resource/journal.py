"""Where whoever changes the host writes down what it is about to do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from kata_py.resource.undo import Undo


class Journal(Protocol):
    """The part of a sandbox's record that makers of resources see.

    `intend` is called before the change and returns only when the entry is on disk; `settled` after the
    change was undone. A kill at any point leaves nothing that the record does not name.
    """

    def intend(self, undo: Undo) -> None:
        """Write down how the change that comes next is undone.

        Raises:
            OSError: The record cannot be written; the change must not be made.
        """

    def settled(self, undo: Undo) -> None:
        """Strike the entry: its resource is gone."""

    def span(self, stage: str) -> AbstractContextManager[None]:
        """Time a stage of the sandbox's life; a failure inside is marked with it."""

    def stage(self, name: str, began: int, ended: int) -> None:
        """Add a stage seen from outside, such as the guest kernel's; times in monotonic nanoseconds."""
