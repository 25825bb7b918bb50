"""What a test left on the machine."""

from __future__ import annotations

from tools.footprint import SHARED_PARENTS, Footprint

_SHARED_PARENTS = frozenset(f"run: {path}" for path in SHARED_PARENTS)


def left_behind(before: Footprint) -> list[str]:
    """What is on the machine now and was not there before, but for the directories that all sandboxes share."""
    return [line for line in Footprint.take().added_since(before) if line not in _SHARED_PARENTS]
