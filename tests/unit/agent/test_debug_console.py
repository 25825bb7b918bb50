from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from kata_agent import debug_console
from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError
from kata_py.ttrpc import transport
from kata_py.ttrpc.address import UnixAddress

BOUND = 10.0  # seconds


@pytest_asyncio.fixture
async def place(reaper: Reaper, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """Where the shell is."""
    monkeypatch.setenv("PS1", "$ ")
    path = short_tmp / "console"
    console = debug_console.DebugConsole(reaper, "/bin/sh")
    listener = await transport.listen(UnixAddress(str(path)), console.accept)
    yield path
    listener.close()
    path.unlink()
    await _shells_gone(reaper)


async def _shells_gone(reaper: Reaper) -> None:
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(child.wait() for child in list(reaper._children.values())))


@asynccontextmanager
async def _connected(place: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(place)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def _until(reader: asyncio.StreamReader, pattern: str) -> re.Match[bytes]:
    said = b""
    async with asyncio.timeout(BOUND):
        while (found := re.search(pattern.encode(), said)) is None:
            piece = await reader.read(4096)
            assert piece, f"the shell ended after {said!r}"
            said += piece
    return found


async def test_each_connection_has_a_shell_on_a_terminal_that_is_its_own(place: Path) -> None:
    terminals = []
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(_connected(place)) for _ in range(2)]
        for reader, writer in connections:
            writer.write(b"tty; echo over-$((40 + 2))\n")
            terminals.append((await _until(reader, r"(/dev/pts/\d+)[^$]*over-42"))[1])
        for reader, writer in connections:
            writer.write(b"sh -c \"echo sta''rted; exec sleep 1000\"\n")
            await _until(reader, "started")
            writer.write(b'\x03echo inter""rupted\n')  # reaches what runs in the terminal's foreground
            await _until(reader, "interrupted")

    assert len(set(terminals)) == 2


async def test_the_shells_end_ends_the_connection(place: Path) -> None:
    async with _connected(place) as (reader, writer):
        writer.write(b"exit\n")

        async with asyncio.timeout(BOUND):
            while await reader.read(4096):
                pass


async def test_the_connections_end_ends_the_shell(place: Path, reaper: Reaper) -> None:
    async with _connected(place) as (reader, writer):
        writer.write(b"echo pid=$$\n")
        pid = int((await _until(reader, r"pid=(\d+)"))[1])
        assert Path(f"/proc/{pid}").exists()

    await _shells_gone(reaper)

    assert not Path(f"/proc/{pid}").exists()


async def test_more_than_a_terminal_holds_goes_through_both_ways(place: Path) -> None:
    async with _connected(place) as (reader, writer):
        writer.write(b"stty -echo -icanon; echo rea''dy; head -c 300000 | wc -c; seq 1 50000; echo do''ne\n")
        await _until(reader, "ready")

        writer.write(b"x" * 300_000)

        await _until(reader, r"300000\r\n1\r\n2\r\n(?s:.*)\r\n50000\r\ndone")


def test_the_first_shell_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    second.touch(mode=0o755)
    (tmp_path / "plain").touch(mode=0o644)
    monkeypatch.setattr(debug_console, "SHELLS", (f"{tmp_path}/plain", str(second), "/bin/sh"))
    assert debug_console.shell() == str(second)

    monkeypatch.setattr(debug_console, "SHELLS", (f"{tmp_path}/plain",))
    with pytest.raises(AgentError, match="no shell for the debug console"):
        debug_console.shell()
