"""What the agent's unit tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from kata_agent import linux
from kata_agent.container.reaper import Reaper


@pytest_asyncio.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """A reaper at work, as in the agent: this process collects orphans meanwhile."""
    reaper = Reaper()
    reaper.start()
    yield reaper
    reaper.close()
    linux.become_subreaper(False)
