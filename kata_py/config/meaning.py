"""What a key means: the comment above it in the model, which is its one description."""

from __future__ import annotations

import inspect
import re


def of(shape: type, key: str) -> str:
    """The paragraph above a key, in one line; keys without a blank line between them share one.

    The first keys of a topic may have none: then the topic's is theirs. Empty where the source is not at hand.
    """
    for each in shape.__mro__:
        if key in vars(each).get("__annotations__", {}):
            try:
                above = _above(inspect.getsource(each).splitlines(), key)
                return above or (each.__doc__ or "").partition("\n")[0]
            except OSError:
                return ""
    return ""


def _above(lines: list[str], key: str) -> str:
    at = next(index for index, line in enumerate(lines) if re.match(rf"\s+{re.escape(key)}\s*:", line))
    while at > 0 and lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#"):
        at -= 1
    comment: list[str] = []
    while at > 0 and lines[at - 1].lstrip().startswith("#"):
        at -= 1
        comment.insert(0, lines[at].strip().lstrip("# "))
    return " ".join(comment)
