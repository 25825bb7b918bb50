from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from kata_py.resource import mount
from kata_py.shim.stdio import ManagerStdioOpener
from tests.drivers.namespace import NamespaceHypervisor
from tests.tasks import Tasks, make_configuration, serving

BUSYBOX = Path("/usr/bin/busybox")  # Debian's busybox-static


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A root file system of busybox alone, with the commands that the tests run."""
    path = Path(tempfile.mkdtemp(prefix="kp-rootfs-", dir="/tmp"))
    path.chmod(0o755)
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (path / name).mkdir()
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for applet in ("cat", "dd", "echo", "false", "head", "kill", "ls", "md5sum", "sh", "sleep", "stty", "true", "yes"):
        (path / "bin" / applet).symlink_to("busybox")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of the test's own, short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    yield path
    mount.detach_below(str(path))
    shutil.rmtree(path)


@pytest.fixture
async def tasks(top: Path, rootfs: Path) -> AsyncIterator[Tasks]:
    """The Task service over the real agent in namespaces, and the manager's real fifos."""
    async with ManagerStdioOpener() as opener, serving(
        top, NamespaceHypervisor, opener, configuration=make_configuration("namespace"), rootfs=rootfs
    ) as tasks:  # fmt: skip
        yield tasks


class Output:
    """The manager's end of an output's fifo. It reads as it comes, unless it is told to stall."""

    def __init__(self, path: Path, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self.path = str(path)
        self.transport = transport
        self._reader = reader

    @classmethod
    async def make(cls, path: Path) -> Output:
        os.mkfifo(path, 0o700)
        reader = asyncio.StreamReader(limit=1 << 20)
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        return cls(path, reader, transport)

    async def read(self, size: int = -1) -> bytes:
        """The next bytes, or all until the writer closed."""
        async with asyncio.timeout(60):
            return await self._reader.read(size)


@pytest.fixture
async def output(top: Path) -> AsyncIterator[Callable[[str], Awaitable[Output]]]:
    """Makes outputs by name."""
    made: list[Output] = []

    async def make(name: str) -> Output:
        made.append(await Output.make(top / name))
        return made[-1]

    yield make
    for output in made:
        output.transport.close()
