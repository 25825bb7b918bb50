"""A pod for each test, with the real agent behind it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kata_py.resource import mount
from tests.drivers.pod import Pod
from tests.drivers.pod import pod as make_pod
from tools import oci_image

_serial = itertools.count(1)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    path = tmp_path_factory.mktemp("rootfs")
    oci_image.rootfs(path)
    path.chmod(0o755)  # pytest's directories are for root alone
    return path


@pytest.fixture
def top(short_tmp: Path) -> Iterator[Path]:
    """A directory for one test's machine, of which nothing may be left afterwards."""
    path = short_tmp / f"agent-{next(_serial)}"
    path.mkdir()
    yield path
    assert not (path / "vm").exists()
    assert [point for point in mount.mount_points() if path.name in point] == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/*{path.name}")) == []


@pytest_asyncio.fixture
async def pod(top: Path, rootfs: Path) -> AsyncIterator[Pod]:
    """A pod without containers."""
    async with make_pod(top, rootfs) as pod:
        yield pod
