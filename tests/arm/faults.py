"""What can go wrong with a call to ARM, and with which."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field


class Harm(enum.Enum):
    """What happens to a call."""

    REFUSED = "it is answered 403"
    FAILED = "it and its repetitions are answered 500"
    CUT_BEFORE = "the connection ends before it is heard"
    CUT_AFTER = "the connection ends when it was done, before it is answered"
    LOST = "it and its repetitions are never heard, the connection ends"
    HUNG_BEFORE = "it is not heard, and not answered"
    HUNG_AFTER = "it is done and not answered"


_STICKY = frozenset({Harm.FAILED, Harm.LOST})


@dataclass
class Schedule:
    """Harm to the n-th call from now on.

    Attributes:
        harm: What happens; None nothing.
        at: Which call, from 1 on.
        calls: How many came.
        struck: Set when the harm was done; whoever hangs is released by `end`.
    """

    harm: Harm | None = None
    at: int = 0
    calls: int = 0
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    victim: tuple[str, str] = ("", "")

    def harm_to(self, method: str, path: str) -> Harm | None:
        """Count a call, and say what happens to it."""
        self.calls += 1
        again = self.harm in _STICKY and self.struck.is_set() and self.victim == (method, path)
        if self.harm is not None and (self.calls == self.at or again):
            self.struck.set()
            self.victim = (method, path)
            return self.harm
        return None
