"""The HTTP client against servers that answer as ours, as Go's do, and as none should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kata_py.http.client import HEAD_MAX, ClientError, Gone, Reply, get
from kata_py.http.server import Answer, Request, serving

LIMIT = 1000


@pytest.fixture
def path(short_tmp: Path, request: pytest.FixtureRequest) -> str:
    return str(short_tmp / f"c{abs(hash(request.node.name)) % 10**9}")


@asynccontextmanager
async def saying(path: str, answer: bytes, *, on: bool = False) -> AsyncIterator[Callable[[], bytes]]:
    """A server that says just that, over and over if it goes on; yields what it was asked."""
    asked = b""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(answer)
            while on:
                writer.write(b"x" * 1000)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_unix_server(connected, path):
        yield lambda: asked


async def ask(path: str, timeout: float = 10.0) -> Reply:
    return await get(path, "/metrics?a=b", timeout=timeout, limit=LIMIT)


async def test_an_answer_of_our_own_server_is_read(path: str) -> None:
    async def handle(request: Request) -> Answer:
        return Answer(f"{request.path} {request.query['a']}".encode() * 10)

    async with serving(path, handle):
        assert await ask(path) == Reply(200, b"/metrics b" * 10)


async def test_it_asks_by_http_1_0_as_chunks_are_not_understood(path: str) -> None:
    async with saying(path, b"HTTP/1.0 500 Internal Server Error\r\nX: y\r\n\r\nall until the end") as asked:
        assert await ask(path) == Reply(500, b"all until the end")
        assert asked() == b"GET /metrics?a=b HTTP/1.0\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "broke off after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broke off after 27 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "broke off after 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a Content-Length: '-1'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "not a Content-Length"),
        (b"HTTP/2 200\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 OK\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_MAX + b"\r\n\r\n", f"head has more than {HEAD_MAX} bytes"),
    ],
)
async def test_what_is_no_answer_is_told_with_its_cause(path: str, answer: bytes, cause: str) -> None:
    async with saying(path, answer):
        with pytest.raises(ClientError, match=cause):
            await ask(path)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_an_endless_answer_is_read_as_far_as_it_is_taken(path: str, head: bytes) -> None:
    async with saying(path, head, on=True):
        with pytest.raises(ClientError, match="more than"):
            await ask(path)


async def test_a_server_that_hangs_costs_the_timeout(path: str) -> None:
    async def hang(request: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError("it went on")

    async with serving(path, hang):
        with pytest.raises(ClientError, match=r"no answer within 0.05 s"):
            await ask(path, 0.05)


async def test_a_server_that_is_gone_is_told_from_one_that_fails(path: str) -> None:
    with pytest.raises(Gone):
        await ask(path)
    async with saying(path, b""):
        with pytest.raises(ClientError) as failed:
            await ask(path)
        assert not isinstance(failed.value, Gone)
    assert Path(path).exists()
    with pytest.raises(Gone):
        await ask(path)
