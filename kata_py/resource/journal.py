"""Where whoever changes the host writes down what it is about to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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


@contextmanager
def undone(journal: Journal, undo: Undo) -> Iterator[None]:
    """A context in which a change is made; leaving it undoes the change and strikes the entry.

    Args:
        journal: Where it is written down before.
        undo: How it is undone.

    Raises:
        OSError: The record cannot be written, or the change cannot be undone; then the entry stays.
    """
    journal.intend(undo)
    try:
        yield
    finally:
        undo.perform()
        journal.settled(undo)
