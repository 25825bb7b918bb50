"""The HTTP server with raw requests, well formed and not."""

from __future__ import annotations

import asyncio
import http.client
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_py.http import server
from kata_py.http.server import Answer, Request, serving, serving_tcp
from tests.tasks import until


class Site:
    """Answers with what it was asked; a GET of /wait waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.go = asyncio.Event()

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.path == "/wait":
            await self.go.wait()
        if request.path == "/fault":
            raise ValueError("a fault")
        return Answer(request.body or b"hello")

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes, and read the answer to its end."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(data)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            try:
                return await reader.read()
            finally:
                writer.close()

    async def status(self, data: bytes, *, end: bool = False) -> int:
        return int((await self.raw(data, end=end)).split(b" ")[1])


@pytest.fixture
async def site(short_tmp: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    site = Site(short_tmp / f"{abs(hash(request.node.name))}")
    async with serving(str(site.path), site.handle):
        yield site


async def test_a_request_is_answered_and_the_connection_closed(site: Site) -> None:
    answer = await site.raw(b"GET /a%20b?path=%2Fdev%2Fx&y= HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        b"hello"
    )
    assert site.requests == [Request("GET", "/a b", {"path": "/dev/x", "y": ""})]


async def test_it_serves_at_a_tcp_port_too() -> None:
    async def handle(request: Request) -> Answer:
        return Answer(request.fields["accept"].encode(), fields={"Vary": "Accept"})

    async with serving_tcp("127.0.0.1", 0, handle) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nAccept:  text/html \r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).endswith(
                b"Content-Length: 9\r\nVary: Accept\r\nConnection: close\r\n\r\ntext/html"
            )
        writer.close()
        with pytest.raises(OSError, match="address already in use"):
            async with serving_tcp("127.0.0.1", port, handle):
                raise AssertionError("it was served")


async def test_only_this_user_may_connect(site: Site) -> None:
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600


async def test_the_standard_librarys_client_sends_a_body_of_the_largest_size(site: Site) -> None:
    def put() -> bytes:
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(site.path))
        connection.request("PUT", "/", bytes(server.BODY_MAX))
        return connection.getresponse().read()

    assert await asyncio.to_thread(put) == bytes(server.BODY_MAX)


async def test_a_body_that_is_announced_is_asked_for(site: Site) -> None:
    reader, writer = await asyncio.open_unix_connection(site.path)
    writer.write(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.read()).endswith(b"\r\n\r\nabc")
    writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (server.BODY_MAX + 1), 413),
        (b"PUT / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * server.HEAD_MAX + b"\r\n\r\n", 431),
        (b"GET /fault HTTP/1.1\r\n\r\n", 500),
    ],
)
async def test_what_cannot_be_answered_is_told_by_a_status(site: Site, data: bytes, status: int) -> None:
    assert await site.status(data) == status
    assert await site.status(b"GET / HTTP/1.1\r\n\r\n") == 200


async def test_a_client_that_leaves_in_the_middle_disturbs_nobody(site: Site) -> None:
    assert await site.raw(b"PUT / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc", end=True) == b""
    assert await site.raw(b"", end=True) == b""
    assert await site.status(b"GET / HTTP/1.1\r\n\r\n") == 200


async def test_a_client_that_says_nothing_is_sent_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", 0.05)
    assert await site.status(b"GET / HT") == 408


async def test_there_is_room_for_so_many_requests_and_no_more(site: Site) -> None:
    waiting = [asyncio.create_task(site.status(b"GET /wait HTTP/1.1\r\n\r\n")) for _ in range(server.CONNECTIONS_MAX)]
    await until(lambda: len(site.requests) == server.CONNECTIONS_MAX)
    assert await site.status(b"GET / HTTP/1.1\r\n\r\n") == 503
    site.go.set()
    assert await asyncio.gather(*waiting) == [200] * server.CONNECTIONS_MAX
    assert await site.status(b"GET / HTTP/1.1\r\n\r\n") == 200


async def test_requests_end_with_the_server(short_tmp: Path) -> None:
    site = Site(short_tmp / "ending")
    async with serving(str(site.path), site.handle):
        asking = asyncio.create_task(site.raw(b"GET /wait HTTP/1.1\r\n\r\n"))
        await until(lambda: site.requests)
    assert await asking == b""
