from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, serving


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of the test's own, short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    yield path
    mount.detach_below(str(path))
    shutil.rmtree(path)


@pytest.fixture
async def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def hypervisor(agent: FakeAgent) -> FakeHypervisor:
    return FakeHypervisor(agent)


@pytest.fixture
async def opener() -> MemoryOpener:
    return MemoryOpener()


@pytest.fixture
async def tasks(top: Path, hypervisor: FakeHypervisor, opener: MemoryOpener) -> AsyncIterator[Tasks]:
    """The Task service over fakes; the files it shares are mounted for real, so this needs root."""
    async with serving(top, lambda configuration: hypervisor, opener) as tasks:
        yield tasks
