"""Streams over a connection that is lost again and again: not a byte is missing, and none comes twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_py.sandbox import agent as agents
from kata_py.sandbox.agent import REPEATABLE, Agent, probe
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.redial import redialling
from tests.cutter import Cutter, between
from tests.drivers.pod import Pod

pytestmark = pytest.mark.root

SIZE = 8 << 20  # bytes
PIECE = 100_000
CUT_EVERY = 1 << 19  # bytes that pass


@pytest.fixture
async def cutter(pod: Pod, tmp_path: Path) -> AsyncIterator[Cutter]:
    address = pod.vm.agent
    assert isinstance(address, UnixAddress)
    async with between(str(tmp_path / "between.sock"), address.path) as cutter:
        yield cutter


@pytest.fixture
async def agent(cutter: Cutter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    monkeypatch.setattr(agents, "READ_SIZE", PIECE)
    address = UnixAddress(str(tmp_path / "between.sock"))
    async with redialling(address, probe, timeout=5, patience=20, repeatable=REPEATABLE) as client:
        agent = Agent(client)
        await agent.learn(timeout=5)
        yield agent


async def read_all(agent: Agent, cutter: Cutter | None = None) -> bytes:
    data = bytearray()
    while piece := await agent.read_stdout("ctr", "", len(data)):
        data += piece
        if cutter is not None and cutter.passed > (cutter.cuts + 1) * CUT_EVERY:
            cutter.cut()
    return bytes(data)


async def write_all(agent: Agent, data: bytes) -> None:
    for start in range(0, len(data), PIECE):
        await agent.write_stdin("ctr", "", data[start : start + PIECE], start)
    await agent.close_stdin("ctr", "")


async def cut_while_bytes_pass(cutter: Cutter) -> None:
    """Cut whenever so much has passed, in the midst of whatever is under way."""
    while True:
        await asyncio.sleep(0)
        if cutter.passed > (cutter.cuts + 1) * CUT_EVERY:
            cutter.cut()


async def test_what_goes_in_and_out_while_connections_are_cut_is_whole(pod: Pod, agent: Agent, cutter: Cutter) -> None:
    data = random.Random(1).randbytes(SIZE)
    await pod.run("ctr", "cat")
    cutting = asyncio.create_task(cut_while_bytes_pass(cutter))
    try:
        async with asyncio.timeout(90):
            _, echoed = await asyncio.gather(write_all(agent, data), read_all(agent))
            assert await agent.wait_process("ctr", "") == 0
    finally:
        cutting.cancel()
    assert cutter.cuts >= 10
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(data).digest()


async def test_a_read_that_waits_while_nobody_stands_between_goes_on_afterwards(
    pod: Pod, agent: Agent, cutter: Cutter
) -> None:
    await pod.run("ctr", "sh", "-c", "echo first; read line; echo $line; read line; exit 7")
    assert await agent.read_stdout("ctr", "", 0) == b"first\n"
    reading = asyncio.create_task(agent.read_stdout("ctr", "", 6))
    waiting = asyncio.create_task(agent.wait_process("ctr", ""))
    await cutter.away()
    await pod.write("ctr", b"second\n")  # by another way, while the reader cannot be reached
    assert not reading.done()
    await cutter.listen()
    async with asyncio.timeout(20):
        assert await reading == b"second\n"
        await agent.write_stdin("ctr", "", b"end\n", 7)
        assert await waiting == 7


async def test_an_answer_that_was_lost_is_given_again_and_not_what_went_before(pod: Pod, agent: Agent) -> None:
    await pod.run("ctr", "sh", "-c", "echo abc; read line; echo def")
    assert await agent.read_stdout("ctr", "", 0) == b"abc\n"
    assert await agent.read_stdout("ctr", "", 0) == b"abc\n"
    await agent.write_stdin("ctr", "", b"\n", 0)
    assert await agent.read_stdout("ctr", "", 4) == b"def\n"
    with pytest.raises(Exception, match="offset 0: 8 bytes were given, the last 4 are kept"):
        await agent.read_stdout("ctr", "", 0)


async def test_what_was_written_already_is_not_written_twice(pod: Pod, agent: Agent) -> None:
    await pod.run("ctr", "cat")
    await agent.write_stdin("ctr", "", b"abc", 0)
    await agent.write_stdin("ctr", "", b"abc", 0)
    await agent.write_stdin("ctr", "", b"bcdef", 1)
    with pytest.raises(Exception, match="offset 9: only 6 bytes were written before"):
        await agent.write_stdin("ctr", "", b"x", 9)
    await agent.close_stdin("ctr", "")
    assert await read_all(agent) == b"abcdef"
