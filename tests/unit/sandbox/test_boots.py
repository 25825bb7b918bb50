from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kata_py.sandbox import boots
from kata_py.sandbox.boots import turn
from kata_py.sandbox.errors import DeadlineExceeded
from tests.conftest import REPOSITORY
from tests.drivers.journal import ListJournal
from tests.tasks import until


class Boot:
    """A machine that boots until it is told that it is up."""

    def __init__(self, directory: Path, limit: int = 2) -> None:
        self.journal = ListJournal()
        self.booting = asyncio.Event()
        self.up = asyncio.Event()
        self.task = asyncio.create_task(self._run(directory, limit))

    async def _run(self, directory: Path, limit: int) -> None:
        async with turn(directory, self.journal, limit):
            self.booting.set()
            await self.up.wait()


@pytest.fixture
def directory(short_tmp: Path, request: pytest.FixtureRequest) -> Path:
    return short_tmp / f"boots-{abs(hash(request.node.name)) % 10000}"


async def in_order(directory: Path, count: int) -> list[Boot]:
    found = []
    for number in range(count):
        found.append(Boot(directory))
        await until(lambda number=number: len(list(directory.glob("*-*[0-9]"))) > number)  # type: ignore[misc]
    return found


async def test_as_many_boot_at_once_as_there_are_places_in_the_order_of_arrival(directory: Path) -> None:
    all_of_them = await in_order(directory, 5)
    for first, second in ((0, 1), (2, 3)):
        await all_of_them[first].booting.wait()
        await all_of_them[second].booting.wait()
        assert not any(boot.booting.is_set() for boot in all_of_them[second + 1 :])
        all_of_them[second].up.set()  # whichever ends first makes room
        await all_of_them[second + 1].booting.wait()
        all_of_them[first].up.set()
    all_of_them[4].up.set()
    for boot in all_of_them:
        await boot.task
        assert boot.journal.entries == []
    assert list(directory.iterdir()) == []


async def test_one_that_gives_up_waiting_makes_room_behind_it(directory: Path) -> None:
    one, two, three, four = await in_order(directory, 4)
    await two.booting.wait()
    three.task.cancel()
    await asyncio.wait([three.task])
    one.up.set()
    await four.booting.wait()
    for boot in (two, four):
        boot.up.set()
        await boot.task


_HOLDER = """
import asyncio, sys
from pathlib import Path
from tests.drivers.journal import ListJournal
from kata_py.sandbox.boots import turn
async def main():
    async with turn(Path(sys.argv[1]), ListJournal(), 2):
        print("booting", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_shim_that_is_killed_while_it_boots_makes_room(directory: Path) -> None:
    async with AsyncExitStack() as stack:
        holders = []
        for _ in range(2):
            holder = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _HOLDER, str(directory), cwd=REPOSITORY, stdout=subprocess.PIPE
            )
            stack.push_async_callback(holder.wait)
            stack.callback(lambda holder=holder: holder.returncode is None and holder.kill())
            assert holder.stdout is not None
            assert await holder.stdout.readline() == b"booting\n"
            holders.append(holder)
        boot = Boot(directory)
        await until(lambda: len(list(directory.iterdir())) == 3)
        assert not boot.booting.is_set()
        holders[0].kill()
        async with asyncio.timeout(5):
            await boot.booting.wait()
        boot.up.set()
        await boot.task


async def test_the_ticket_of_a_shim_that_died_before_is_removed(directory: Path) -> None:
    directory.mkdir()
    for number in range(2):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(directory / f"{number:020d}-1"))
    async with asyncio.timeout(5), turn(directory, ListJournal(), 2):
        assert len(list(directory.iterdir())) == 1


async def test_whoever_does_not_get_its_turn_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boots, "TIMEOUT", 0.05)
    async with turn(directory, ListJournal(), 1):
        with pytest.raises(DeadlineExceeded, match=r"no turn to boot within 0\.05 s: 1 machines are before this one"):
            async with turn(directory, ListJournal(), 1):
                raise AssertionError("booted")


def test_turns_are_counted_without_those_of_shims_that_are_gone(tmp_path: Path) -> None:
    assert boots.Turns.of(tmp_path / "missing", 2) == boots.Turns(0, 0)
    for name in (*(f"{number}-{os.getpid()}" for number in range(5)), "6-4194305", f"7-{os.getpid()}.new", "x"):
        (tmp_path / name).touch()
    assert boots.Turns.of(tmp_path, 2) == boots.Turns(2, 3)
    assert boots.Turns.of(tmp_path, 8) == boots.Turns(5, 0)
