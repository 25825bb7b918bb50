"""The queue of containers in which a process was killed for want of memory; GetOOMEvent takes from it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from kata_agent.errors import AgentError

_LOG = logging.getLogger(__name__)

_CAPACITY = 100  # as upstream's
_CLOSED_PAUSE = 1.0  # seconds; some hosts ask again at once whatever the answer was


class OomEvents:
    """Container ids, each given to one receiver; receivers take turns."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._closed = False

    def put(self, container_id: str) -> None:
        """Add an event; when nobody takes any, it is logged and dropped."""
        if len(self._waiting) >= _CAPACITY:
            _LOG.warning("container %s: out of memory, which no host has asked for", container_id)
            return
        _LOG.info("container %s: a process was killed for want of memory", container_id)
        self._waiting.append(container_id)
        self._news.set()

    async def get(self) -> str:
        """Wait for an event, however long.

        Raises:
            AgentError: The sandbox was destroyed.
        """
        if self._closed:
            await asyncio.sleep(_CLOSED_PAUSE)
        async with self._receiving:
            while not self._waiting:
                if self._closed:
                    raise AgentError("no more OOM events: the sandbox was destroyed")
                self._news.clear()
                await self._news.wait()
            return self._waiting.popleft()

    def close(self) -> None:
        """No more events; whoever waits is told."""
        self._closed = True
        self._news.set()
