"""What the agent's unit tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_agent import linux
from kata_agent.container.reaper import Reaper
from tests.unit.agent.machine import Machine


@pytest_asyncio.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """A reaper at work, as in the agent: this process collects orphans meanwhile."""
    reaper = Reaper()
    reaper.start()
    yield reaper
    reaper.close()
    linux.become_subreaper(False)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """What stands for a guest's devices and its kernel."""
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.close()
