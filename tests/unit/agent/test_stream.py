from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_agent.container import stdio
from kata_agent.container.stdio import Stdio
from kata_agent.container.stream import DRAIN_TIME, PIPE_CAPACITY, InputStream, OutputStream
from kata_agent.errors import AgentError, Unavailable

TIMEOUT = 5.0


@pytest.fixture
async def output() -> Iterator[tuple[OutputStream, int]]:
    reader, writer = os.pipe()
    stream = OutputStream(reader)
    yield stream, writer
    stream.close()
    try:
        os.close(writer)
    except OSError:
        pass  # the test has closed it


@pytest.fixture
async def stdin() -> Iterator[tuple[InputStream, int]]:
    reader, writer = os.pipe()
    stream = InputStream(writer)
    yield stream, reader
    stream.abandon()
    try:
        os.close(reader)
    except OSError:
        pass


def _fill(writer: int, mark: bytes = b"x") -> int:
    os.set_blocking(writer, False)
    count = 0
    while True:
        try:
            count += os.write(writer, mark * 4096)
        except BlockingIOError:
            return count


async def test_a_read_waits_for_bytes_and_gives_no_more_than_asked(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    reading = asyncio.create_task(stream.read(3))
    await asyncio.sleep(0)

    os.write(writer, b"hello")

    async with asyncio.timeout(TIMEOUT):
        assert await reading == b"hel"
        assert await stream.read(100) == b"lo"


async def test_the_end_comes_when_the_last_writer_is_gone_and_stays(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    os.write(writer, b"bye")
    os.close(writer)

    assert [await stream.read(100) for _ in range(3)] == [b"bye", b"", b""]


async def test_readers_take_turns(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    readers = [asyncio.create_task(stream.read(1)) for _ in range(3)]
    await asyncio.sleep(0)

    os.write(writer, b"abc")

    async with asyncio.timeout(TIMEOUT):
        assert await asyncio.gather(*readers) == [b"a", b"b", b"c"]


async def test_a_cancelled_read_takes_nothing(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])

    os.write(writer, b"kept")

    assert await stream.read(100) == b"kept"


async def test_after_the_process_a_held_pipe_ends_within_the_drain_time(output: tuple[OutputStream, int]) -> None:
    stream, _ = output
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0)
    began = loop.time()

    stream.process_ended()

    async with asyncio.timeout(TIMEOUT):
        assert await reading == b""
    assert DRAIN_TIME * 0.9 <= loop.time() - began < DRAIN_TIME + 1


async def test_output_of_children_within_the_drain_time_is_passed_on(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    stream.process_ended()
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0)

    os.write(writer, b"late")

    async with asyncio.timeout(TIMEOUT):
        assert await reading == b"late"
        assert await stream.read(100) == b""


async def test_what_the_process_left_in_the_pipe_is_read_however_late(
    output: tuple[OutputStream, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, writer = output
    left = _fill(writer)
    stream.process_ended()
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + 3600)

    data = b""
    while piece := await stream.read(10_000):
        data += piece

    assert len(data) == left == PIPE_CAPACITY


async def test_a_child_that_never_stops_writing_cannot_keep_the_stream_open(
    output: tuple[OutputStream, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, writer = output
    _fill(writer, b"own ")
    stream.process_ended()
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + DRAIN_TIME)

    data = b""
    while piece := await stream.read(4096):
        data += piece
        _fill(writer, b"child")

    assert data.startswith(b"own " * (PIPE_CAPACITY // 4))
    assert len(data) <= PIPE_CAPACITY + 4096


async def test_closing_ends_a_pending_read(output: tuple[OutputStream, int]) -> None:
    stream, _ = output
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0)

    stream.close()

    async with asyncio.timeout(TIMEOUT):
        assert await reading == b""


async def test_a_write_waits_for_the_process_and_loses_nothing(stdin: tuple[InputStream, int]) -> None:
    stream, reader = stdin
    data = os.urandom(3 * PIPE_CAPACITY)
    writing = asyncio.create_task(stream.write(data))

    got = b""
    while len(got) < len(data):
        got += await asyncio.to_thread(os.read, reader, 65536)

    await writing
    assert got == data


async def test_writes_keep_their_order_and_the_end_comes_after_them(stdin: tuple[InputStream, int]) -> None:
    stream, reader = stdin
    filler = bytes(PIPE_CAPACITY)
    writes = [asyncio.create_task(stream.write(data)) for data in (filler, b"first", b"second")]
    await asyncio.sleep(0)

    stream.close()

    got = b""
    while piece := await asyncio.to_thread(os.read, reader, 65536):
        got += piece
    await asyncio.gather(*writes)
    assert got == filler + b"firstsecond"


async def test_after_the_end_nothing_can_be_written(stdin: tuple[InputStream, int]) -> None:
    stream, reader = stdin
    stream.close()
    stream.close()

    with pytest.raises(AgentError, match="Cannot get writer"):
        await stream.write(b"more")
    assert os.read(reader, 1) == b""


async def test_a_process_that_closes_stdin_fails_the_write(stdin: tuple[InputStream, int]) -> None:
    stream, reader = stdin
    writing = asyncio.create_task(stream.write(bytes(2 * PIPE_CAPACITY)))
    await asyncio.sleep(0)

    os.close(reader)

    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(AgentError, match="no longer reads stdin"):
            await writing


async def test_a_process_that_ends_fails_a_write_though_a_child_holds_stdin(stdin: tuple[InputStream, int]) -> None:
    stream, _ = stdin
    writing = asyncio.create_task(stream.write(bytes(2 * PIPE_CAPACITY)))
    await asyncio.sleep(0)

    stream.abandon()

    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(AgentError, match="Cannot get writer"):
            await writing


async def test_pipes_close_our_ends_when_the_process_could_not_be_started() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())

    with pytest.raises(RuntimeError), stdio.pipes():
        raise RuntimeError

    assert sorted(Path("/proc/self/fd").iterdir()) == before


async def test_pipes_of_another_capacity_hold_as_much() -> None:
    with stdio.pipes(1 << 20) as (streams, (_, stdout, _)):
        assert _fill(stdout) == 1 << 20
    streams.close()


async def test_without_a_terminal_there_is_no_size() -> None:
    with stdio.pipes() as (streams, _), pytest.raises(Unavailable, match="no tty"):
        streams.resize(24, 80)
    streams.close()


@pytest.fixture
async def console() -> Iterator[tuple[Stdio, int]]:
    master, slave = os.openpty()
    streams = stdio.terminal(master)
    yield streams, slave
    streams.close()
    try:
        os.close(slave)
    except OSError:
        pass


async def test_a_terminal_has_a_size_and_one_output(console: tuple[Stdio, int]) -> None:
    streams, slave = console

    streams.resize(40, 100)

    assert os.get_terminal_size(slave) == (100, 40)
    assert streams.stderr is None


async def test_a_terminal_that_is_closed_and_opened_again_goes_on(console: tuple[Stdio, int]) -> None:
    streams, slave = console
    name = os.ttyname(slave)
    os.write(slave, b"one")
    os.close(slave)
    assert await streams.stdout.read(100) == b"one"
    reading = asyncio.create_task(streams.stdout.read(100))
    await asyncio.sleep(0)

    again = os.open(name, os.O_RDWR | os.O_NOCTTY)
    os.write(again, b"two")
    os.close(again)

    async with asyncio.timeout(TIMEOUT):
        assert await reading == b"two"


async def test_a_terminal_ends_with_its_process(console: tuple[Stdio, int]) -> None:
    streams, slave = console
    os.write(slave, b"last words")
    os.close(slave)

    streams.process_ended()

    async with asyncio.timeout(TIMEOUT):
        assert [await streams.stdout.read(100) for _ in range(2)] == [b"last words", b""]


async def test_closing_a_terminals_stdin_leaves_its_output_and_size(console: tuple[Stdio, int]) -> None:
    streams, slave = console

    streams.stdin.close()
    streams.resize(10, 20)
    os.write(slave, b"still here")

    assert await streams.stdout.read(100) == b"still here"


async def test_a_reader_that_counts_gets_a_lost_answer_again(output: tuple[OutputStream, int]) -> None:
    stream, writer = output
    os.write(writer, b"abc")
    assert await stream.read(2, 0) == b"ab"
    assert await stream.read(2, 0) == b"ab"
    assert await stream.read(2, 2) == b"c"
    os.close(writer)
    assert await stream.read(2, 3) == b""
    assert await stream.read(2, 3) == b""
    with pytest.raises(AgentError, match="offset 1: 3 bytes were given"):
        await stream.read(2, 1)


async def test_a_writer_that_counts_writes_nothing_twice(stdin: tuple[InputStream, int]) -> None:
    stream, reader = stdin
    await stream.write(b"abc", 0)
    await stream.write(b"abcd", 0)
    await stream.write(b"cde", 2)
    with pytest.raises(AgentError, match="offset 9: only 5 bytes were written before"):
        await stream.write(b"x", 9)
    stream.close()
    assert os.read(reader, 100) == b"abcde"
