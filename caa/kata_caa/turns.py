"""Turns: at most so many do something at a time, in the order in which they came.

A burst of pods must not become a burst of calls that the cloud throttles: those who wait in turn start sooner than
those who are told to come back later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Queued = Callable[[Callable[[], int]], None]
"""Given, by whoever waits in the queue, what tells how many are before it now."""


class Turns:
    """A fair, bounded queue. Who leaves the queue, cancelled, holds up nobody.

    `asyncio.Semaphore` is not used: a newcomer may pass its queue in some releases of Python 3.11, and its length
    cannot be asked for.

    Attributes:
        limit: How many at a time.
        busy: How many have their turn now.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"{limit} turns at a time: at least one is needed")
        self.limit = limit
        self.busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, queued: Queued = lambda before: None) -> AsyncIterator[None]:
        """Wait for a turn; leaving gives it to the next.

        Args:
            queued: Called if the turn does not come at once.
        """
        await self._take(queued)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, queued: Queued) -> None:
        if self.busy < self.limit:  # then nobody waits: a turn that ends goes to the queue's first
            self.busy += 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._queue.append(mine)
        queued(lambda: self._queue.index(mine) if mine in self._queue else 0)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # the turn came together with the cancellation
            elif mine in self._queue:  # whoever passed a turn on meanwhile has dropped it already
                self._queue.remove(mine)
            raise

    def _pass_on(self) -> None:
        while self._queue:
            following = self._queue.popleft()
            if not following.done():
                following.set_result(None)
                return
        self.busy -= 1
