"""What can go wrong while building, and what to do about it."""

from __future__ import annotations


class BuildError(Exception):
    """The guest cannot be built.

    Args:
        cause: What failed, and how.
        hint: What to do about it.
    """

    def __init__(self, cause: str, hint: str) -> None:
        super().__init__(f"{cause}\n  {hint}")
        self.cause = cause
        self.hint = hint
