"""How much of the log a guest may fill with its own lines: a node's journal is everybody's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

GUEST = frozenset({"kata_py.sandbox.agent_log", "kata_qemu.console"})  # the loggers whose lines a guest writes
BURST = 4000  # lines at once; a boot with the kernel's debug messages has some 1500
RATE = 200.0  # lines a second, from then on


class GuestRate(logging.Filter):
    """Lets through what the host logs, and of the guest's lines as many as its share; tells how many it dropped.

    The first line that passes again tells it, as the field `dropped`.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._share = float(BURST)
        self._at = clock()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line may be written."""
        if record.name not in GUEST:
            return True
        now = self._clock()
        self._share = min(BURST, self._share + (now - self._at) * RATE)
        self._at = now
        if self._share < 1:
            self._dropped += 1
            return False
        self._share -= 1
        if self._dropped:
            record.dropped = self._dropped
            self._dropped = 0
        return True
