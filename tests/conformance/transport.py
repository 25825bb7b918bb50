"""What every transport must do: checks that take a `Line`, for the real ones and the one in memory alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from kata_py.ttrpc.transport import Listener, ProtocolFactory

PATIENCE = 20.0  # seconds until a check gives up
LONG = 3_000_000  # bytes: more than any buffer on the way


class Line(Protocol):
    """A place to listen at and to connect to."""

    async def listen(self, factory: ProtocolFactory) -> Listener:
        """Begin to listen."""

    async def connect(self, factory: ProtocolFactory) -> None:
        """Connect to it."""


class End(asyncio.BufferedProtocol):
    """One end of a connection: it keeps what it gets, and minds the order of events."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.made = asyncio.Event()
        self.paused = False
        self._space = memoryview(bytearray(100_000))
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not self.made.is_set()
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.made.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        assert self.made.is_set()
        assert not self.lost.done()
        assert nbytes > 0
        self.received += self._space[:nbytes]
        self._changed.set()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_writing(self) -> None:
        assert self.paused
        self.paused = False
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.made.is_set()
        self.lost.set_result(exc)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, which can only become so when something comes."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ended(self) -> Exception | None:
        async with asyncio.timeout(PATIENCE):
            return await self.lost


class Acceptor:
    """The listening side: the ends that came, in order."""

    def __init__(self) -> None:
        self._ends: asyncio.Queue[End] = asyncio.Queue()

    def __call__(self) -> End:
        end = End()
        self._ends.put_nowait(end)
        return end

    async def next(self) -> End:
        async with asyncio.timeout(PATIENCE):
            end = await self._ends.get()
            await end.made.wait()
            return end


@contextlib.asynccontextmanager
async def accepting(line: Line) -> AsyncIterator[Acceptor]:
    acceptor = Acceptor()
    listener = await line.listen(acceptor)
    try:
        yield acceptor
    finally:
        listener.close()


async def joined(line: Line, acceptor: Acceptor) -> tuple[End, End]:
    """A connection: the end that connected and the one that was connected to."""
    here = End()
    await line.connect(lambda: here)
    here.transport.write(b"!")  # where there are no connections, the first byte begins one
    there = await acceptor.next()
    await there.until(lambda: there.received == b"!")
    there.received.clear()
    return here, there


async def bytes_arrive_both_ways_and_in_order(line: Line) -> None:
    async with accepting(line) as acceptor:
        here, there = await joined(line, acceptor)
        long = bytes(range(256)) * (LONG // 256)
        for sender, receiver in ((here, there), (there, here)):
            sender.transport.write(b"short")
            sender.transport.write(long)
            sender.transport.writelines([b"", b"the ", memoryview(b"end")])
            wanted = b"short" + long + b"the end"
            await receiver.until(lambda: len(receiver.received) >= len(wanted))  # noqa: B023 awaited here
            assert receiver.received == wanted
        here.transport.abort()
        await there.ended()


async def both_ways_at_once_stall_nothing(line: Line) -> None:
    async with accepting(line) as acceptor:
        ends = await joined(line, acceptor)
        for end in ends:
            end.transport.write(bytes(LONG))
        for end in ends:
            await end.until(lambda: len(end.received) == LONG)  # noqa: B023 awaited here
        ends[0].transport.abort()
        await ends[1].ended()


async def a_reader_that_pauses_makes_the_writer_pause_and_loses_nothing(line: Line) -> None:
    async with accepting(line) as acceptor:
        here, there = await joined(line, acceptor)
        there.transport.pause_reading()
        sent = 0
        while not here.paused:
            assert sent < LONG * 10, "the writer was never told to pause"
            here.transport.write(bytes(10_000))
            sent += 10_000
        assert here.transport.get_write_buffer_size() > 0
        before = len(there.received)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(there.received) == before
        there.transport.resume_reading()
        await there.until(lambda: len(there.received) == sent)
        await here.until(lambda: not here.paused)
        here.transport.abort()
        await there.ended()


async def closing_sends_first_what_was_written(line: Line) -> None:
    async with accepting(line) as acceptor:
        here, there = await joined(line, acceptor)
        here.transport.write(bytes(LONG))
        here.transport.close()
        assert here.transport.is_closing()
        assert await there.ended() is None
        assert len(there.received) == LONG
        assert await here.ended() is None


async def aborting_ends_both_sides_at_once(line: Line) -> None:
    async with accepting(line) as acceptor:
        here, there = await joined(line, acceptor)
        there.transport.pause_reading()
        here.transport.write(bytes(LONG))
        here.transport.abort()
        assert await here.ended() is None
        there.transport.resume_reading()
        await there.ended()
        assert len(there.received) < LONG


async def a_new_connection_knows_nothing_of_the_one_before(line: Line) -> None:
    async with accepting(line) as acceptor:
        for number in range(5):
            here, there = await joined(line, acceptor)
            there.transport.write(b"half an ans")
            here.transport.write(b"half a req %d" % number)
            await there.until(lambda: len(there.received) == 12)  # noqa: B023 awaited here
            here.transport.abort()
            await there.ended()
            await here.ended()
            assert there.received == b"half a req %d" % number


async def a_connection_outlives_its_listener(line: Line) -> None:
    async with accepting(line) as acceptor:
        here, there = await joined(line, acceptor)
    here.transport.write(b"still there")
    await there.until(lambda: there.received == b"still there")
    there.transport.close()
    assert await there.ended() is None
    await here.ended()


CHECKS: list[Callable[[Line], Awaitable[None]]] = [
    bytes_arrive_both_ways_and_in_order,
    both_ways_at_once_stall_nothing,
    a_reader_that_pauses_makes_the_writer_pause_and_loses_nothing,
    closing_sends_first_what_was_written,
    aborting_ends_both_sides_at_once,
    a_new_connection_knows_nothing_of_the_one_before,
    a_connection_outlives_its_listener,
]
