from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_qemu.lines import LINE_MAX, TAIL_MAX, LineReader, Tail, reading


class Pipe:
    """A pipe and the lines read from it."""

    def __init__(self, stack: ExitStack) -> None:
        self.out, self.into = os.pipe()
        self.lines: list[str] = []
        self._news = asyncio.Event()
        stack.callback(os.close, self.out)
        self._stack = stack

    def take(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            while len(self.lines) < count:
                self._news.clear()
                await self._news.wait()
        return self.lines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with ExitStack() as stack:
        yield Pipe(stack)


async def test_lines_are_passed_on_as_they_come_whatever_their_pieces(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.write(pipe.into, b"one\ntw")
        assert await pipe.until(1) == ["one"]
        os.write(pipe.into, b"o\r\n\n\nthree\n")
        assert await pipe.until(3) == ["one", "two", "three"]
        os.close(pipe.into)


async def test_what_a_writer_left_behind_is_read_when_the_context_ends(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.write(pipe.into, b"last words\nand a half")
        os.close(pipe.into)
    assert pipe.lines == ["last words", "and a half"]


async def test_a_writer_that_stays_does_not_hold_the_end_up(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.write(pipe.into, b"one\n")
    assert pipe.lines == ["one"]
    os.close(pipe.into)


async def test_a_line_without_end_is_told_in_pieces(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.write(pipe.into, b"x" * (2 * LINE_MAX + 10))
        os.close(pipe.into)
    assert [len(line) for line in pipe.lines] == [LINE_MAX, LINE_MAX, 10]


async def test_a_guest_cannot_write_terminal_commands_into_the_log(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.write(pipe.into, b"\x1b[2J\x1b[1;31mred\x1b[0m\x07 \xff\x9b\n")
        os.close(pipe.into)
    assert pipe.lines == ["red \ufffd\ufffd"]


async def test_a_socket_whose_other_end_is_reset_ends_like_any_other() -> None:
    ours, theirs = socket.socketpair()
    ours.send(b"unread")
    lines: list[str] = []
    with ours, reading(ours.fileno(), lines.append):
        theirs.send(b"heard\n")
        theirs.close()  # with bytes of ours unread: ECONNRESET
    assert lines == ["heard"]


async def test_nothing_is_watched_any_more_after_the_end(pipe: Pipe) -> None:
    with reading(pipe.out, pipe.take):
        os.close(pipe.into)
    assert asyncio.get_running_loop().remove_reader(pipe.out) is False


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_in_any_pieces_become_printable_lines(chunks: list[bytes]) -> None:
    async def read() -> list[str]:
        lines: list[str] = []
        out, into = os.pipe()
        os.set_blocking(out, False)
        reader = LineReader(out, lines.append)
        for chunk in chunks:
            os.write(into, chunk)
            reader.read()
        os.close(into)
        reader.drain()
        os.close(out)
        return lines

    assert all(line and not line.isspace() for line in asyncio.run(read()))


def test_the_tail_keeps_the_last_lines_oldest_first() -> None:
    tail = Tail()
    for number in range(TAIL_MAX + 5):
        tail.add(str(number))
    assert tail.lines == tuple(str(number) for number in range(5, TAIL_MAX + 5))


async def test_a_flood_of_lines_lets_others_have_their_turn(pipe: Pipe) -> None:
    os.write(pipe.into, b"x\n" * (1 << 14))
    turns = [0]
    with reading(pipe.out, pipe.take):
        while turns[-1] < 1 << 14:
            await asyncio.sleep(0)
            turns.append(len(pipe.lines))
        os.close(pipe.into)
    assert max(after - before for before, after in pairwise(turns)) <= LINE_MAX // 2
