from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from kata_py.sandbox import pump
from kata_py.sandbox.pump import Pump

KIB = 1024
_PATTERN = bytes(range(251))


class Source:
    """Gives `total` bytes in chunks; `taken` tells how far it was read."""

    def __init__(self, total: int, chunk: int = 32 * KIB) -> None:
        self.total = total
        self.chunk = chunk
        self.taken = 0
        self.ended = asyncio.Event()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        start, length = self.taken % 251, min(self.chunk, self.total - self.taken)
        data = (_PATTERN * (length // 251 + 2))[start : start + length]
        self.taken += len(data)
        if not data:
            self.ended.set()
        return data


class Sink:
    """Takes bytes while it is open."""

    def __init__(self, *, open: bool = True) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []
        self.open = asyncio.Event()
        self.asked = asyncio.Event()
        if open:
            self.open.set()

    async def write(self, data: bytes) -> None:
        self.asked.set()
        await self.open.wait()
        self.data += data
        self.sizes.append(len(data))


def make(
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
    *,
    piece: int = 64 * KIB,
    patience: float = 0.05,
) -> Pump:
    return Pump("stdout", read, write, piece=piece, patience=patience)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the condition has no event of its own
            await asyncio.sleep(0)


async def test_everything_arrives_in_order() -> None:
    source, sink = Source(10_007, chunk=997), Sink()
    await make(source.read, sink.write, piece=101).run()
    expected = bytearray()
    again = Source(10_007, chunk=997)
    while data := await again.read():
        expected += data
    assert sink.data == expected


async def test_what_has_gathered_is_written_in_one_piece() -> None:
    source, sink = Source(512 * KIB), Sink(open=False)
    running = asyncio.create_task(make(source.read, sink.write, piece=1 << 20, patience=math.inf).run())
    await source.ended.wait()
    sink.open.set()
    await running
    assert len(sink.data) == 512 * KIB
    assert len(sink.sizes) == 2


async def test_reading_stops_at_the_limit_while_nobody_takes_the_bytes() -> None:
    source, sink = Source(8 << 20), Sink(open=False)
    running = asyncio.create_task(make(source.read, sink.write, patience=30.0).run())
    await until(lambda: source.taken >= pump.LIMIT)
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.taken <= pump.LIMIT + 128 * KIB
    sink.open.set()
    await running
    assert len(sink.data) == 8 << 20


async def test_widening_reaches_the_end_though_nobody_takes_the_bytes() -> None:
    source, sink = Source(pump.LIMIT + pump.WIDTH), Sink(open=False)
    pumped = make(source.read, sink.write)
    running = asyncio.create_task(pumped.run())
    await until(lambda: source.taken >= pump.LIMIT)
    pumped.widen()
    async with asyncio.timeout(5):
        await source.ended.wait()
        await running


async def test_widening_has_a_limit() -> None:
    source, sink = Source(64 << 20, chunk=1 << 20), Sink(open=False)
    pumped = make(source.read, sink.write, patience=math.inf)
    running = asyncio.create_task(pumped.run())
    for _ in range(100):
        pumped.widen()
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    assert source.taken <= pump.LIMIT_MAX + (2 << 20)
    running.cancel()
    await asyncio.wait([running])


async def test_the_end_of_a_process_that_nobody_signals_is_seen_though_nobody_takes_the_bytes() -> None:
    source, sink = Source(pump.LIMIT + 2 * pump.WIDTH), Sink(open=False)
    async with asyncio.timeout(5):
        await make(source.read, sink.write, patience=0.02).run()
    assert source.ended.is_set()


async def test_time_widens_ever_more_slowly() -> None:
    source, sink = Source(64 << 20), Sink(open=False)
    running = asyncio.create_task(make(source.read, sink.write, patience=0.01).run())
    began = asyncio.get_running_loop().time()
    await until(lambda: source.taken > pump.LIMIT + 3 * pump.WIDTH + 128 * KIB)
    assert asyncio.get_running_loop().time() - began >= 0.01 + 0.02 + 0.04 + 0.08 - 0.001
    running.cancel()
    await asyncio.wait([running])


async def test_the_limit_falls_back_once_all_was_taken() -> None:
    source, sink = Source(8 << 20), Sink()
    pumped = make(source.read, sink.write)
    pumped.widen()
    await pumped.run()
    assert pumped._limit == pump.LIMIT


async def test_a_reader_that_stalls_after_the_end_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    source, sink = Source(100), Sink(open=False)
    async with asyncio.timeout(5):
        await make(source.read, sink.write).run()
    assert "stdout: not read for 0.05 s" in caplog.text


async def test_a_slow_reader_is_waited_for_as_long_as_it_goes_on() -> None:
    source = Source(1000)
    taken = bytearray()

    async def slow(data: bytes) -> None:
        await asyncio.sleep(0.02)
        taken.extend(data)

    await make(source.read, slow, piece=100, patience=0.1).run()  # 0.2 s in all
    assert len(taken) == 1000


async def test_a_writer_that_fails_does_not_stop_the_reading() -> None:
    source = Source(4 << 20)

    async def broken(data: bytes) -> None:
        raise BrokenPipeError

    await make(source.read, broken).run()
    assert source.taken == 4 << 20


async def test_cancelling_leaves_no_task_behind() -> None:
    source, sink = Source(4 << 20), Sink(open=False)
    running = asyncio.create_task(make(source.read, sink.write).run())
    await sink.asked.wait()
    running.cancel()
    await asyncio.wait([running])
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_the_source_is_raised_and_leaves_no_task_behind() -> None:
    async def fail() -> bytes:
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await make(fail, Sink().write).run()
    assert asyncio.all_tasks() == {asyncio.current_task()}
