"""Whose node it is, of two adaptors that are there at the same time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kata_caa.errors import AdaptorError
from kata_caa.tenure import tenure

BOUND = 10.0  # seconds that anything here may take
HOLDER = (
    "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); input()"
)


async def test_the_first_is_alone_at_once(tmp_path: Path):
    async with tenure(tmp_path / "pods") as alone:
        assert alone.is_set()


async def test_the_second_is_alone_when_the_first_has_ended(tmp_path: Path):
    async with AsyncExitStack() as first:
        await first.enter_async_context(tenure(tmp_path))
        async with tenure(tmp_path) as alone:
            assert not alone.is_set()
            await first.aclose()
            async with asyncio.timeout(BOUND):
                await alone.wait()
            async with tenure(tmp_path) as third:
                assert not third.is_set()


async def test_the_second_is_alone_when_the_first_was_killed(tmp_path: Path):
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    await first.stdout.readline()
    async with tenure(tmp_path) as alone:
        assert not alone.is_set()
        first.kill()
        async with asyncio.timeout(BOUND):
            await alone.wait()
            await first.wait()


async def test_one_that_ends_while_it_waits_is_in_nobodys_way(tmp_path: Path):
    async with AsyncExitStack() as first:
        await first.enter_async_context(tenure(tmp_path))
        async with tenure(tmp_path):
            pass
        async with tenure(tmp_path) as alone:
            await first.aclose()
            async with asyncio.timeout(BOUND):
                await alone.wait()


async def test_a_place_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(AdaptorError, match=r"/file cannot be used: .* -pods-dir"):
        async with tenure(tmp_path / "file"):
            raise AssertionError
