import asyncio

import pytest

from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.inbox import BYTES_MAX, MESSAGES_MAX, Inbox
from kata_py.ttrpc.status import Code


class Line:
    """Counts holds as a link does."""

    def __init__(self):
        self.held = 0

    def hold(self):
        self.held += 1

    def release(self):
        self.held -= 1


@pytest.fixture
def line():
    return Line()


async def test_messages_are_read_in_order_and_then_the_end(line):
    inbox = Inbox(line)
    for message in (b"1", b"", b"3"):
        inbox.put(message)
    inbox.end()
    assert [await inbox.get() for _ in range(5)] == [b"1", b"", b"3", None, None]


async def test_a_reader_waits_for_a_message(line):
    inbox = Inbox(line)
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    assert not reader.done()
    inbox.put(b"now")
    assert await reader == b"now"


async def test_an_error_is_raised_after_what_came_before_it(line):
    inbox = Inbox(line)
    inbox.put(b"1")
    inbox.end(ConnectionClosed("gone"))
    assert await inbox.get() == b"1"
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match="gone"):
            await inbox.get()


async def test_the_first_end_counts_and_what_comes_after_it_is_dropped(line):
    inbox = Inbox(line)
    inbox.end()
    inbox.end(ConnectionClosed("later"))
    inbox.put(b"late")
    assert await inbox.get() is None


@pytest.mark.parametrize(
    ("message", "count"), [(b"x", MESSAGES_MAX), (bytes(BYTES_MAX // 4), 4)], ids=["messages", "bytes"]
)
async def test_a_full_inbox_holds_the_line_until_half_of_it_is_read(line, message, count):
    inbox = Inbox(line)
    for number in range(count):
        assert line.held == 0, number
        inbox.put(message)
    assert line.held == 1
    for number in range(count // 2):
        assert line.held == 1, number
        await inbox.get()
    assert line.held == 0


async def test_a_reader_that_stalls_loses_its_stream_and_the_line_goes_on(line):
    inbox = Inbox(line, stall_timeout=0.01)
    for _ in range(MESSAGES_MAX):
        inbox.put(b"x")
    inbox.end()  # the peer has said all; the reader has not got it
    async with asyncio.timeout(10):
        while line.held:  # noqa: ASYNC110 the timer is what is tested
            await asyncio.sleep(0.005)
    with pytest.raises(StatusError, match=r"not read for 0\.01 s") as caught:
        await inbox.get()
    assert caught.value.code == Code.RESOURCE_EXHAUSTED


async def test_discarding_a_full_inbox_releases_the_line(line):
    inbox = Inbox(line)
    for _ in range(MESSAGES_MAX):
        inbox.put(b"x")
    inbox.discard()
    assert line.held == 0
    assert await inbox.get() is None


async def test_a_cancelled_reader_leaves_the_inbox_usable(line):
    inbox = Inbox(line)
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    inbox.put(b"x")
    assert await inbox.get() == b"x"
