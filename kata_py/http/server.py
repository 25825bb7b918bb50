"""A small HTTP/1.1 server: one request a connection, every size and every wait with a bound.

For a handful of clients; whoever may connect is trusted with what is served, and with nothing else: no request can hold
up what the process is really for. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from kata_py.ttrpc.transport import unix

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 16
HEAD_MAX = 1 << 14  # bytes of request line and header fields
BODY_MAX = 4 << 20  # bytes: what a message to an agent can hold
REQUEST_TIMEOUT = 10.0  # seconds that a client may take to say what it wants
HANDLE_TIMEOUT = 120.0  # seconds until it is answered
ANSWER_TIMEOUT = 10.0  # seconds that it may take to hear the answer

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_ONCE = ("content-length", "host")  # of two, a proxy and we might take different ones


class HttpError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The answer's status code.
        cause: What is wrong, in words for the client.
    """

    def __init__(self, status: HTTPStatus, cause: str) -> None:
        super().__init__(cause)
        self.status = status
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        method: `GET`, `PUT` and so on.
        path: Without the query, decoded.
        query: Its parameters, decoded; the last of several of a name.
        body: What was sent.
        fields: The header's, by their names in lower case; the last of several of a name.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict, compare=False)


Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        body: What is sent.
        content_type: What it is.
        status: Its status code.
        fields: Further ones of the header.
        stream: Takes the connection over once the head is written, in place of a body, for as long as it likes.
    """

    body: bytes = b""
    content_type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK
    fields: Mapping[str, str] = field(default_factory=dict)
    stream: Stream | None = None


Handler = Callable[[Request], Awaitable[Answer]]


@asynccontextmanager
async def serving(path: str, handler: Handler) -> AsyncIterator[None]:
    """Serve at a Unix socket of this user alone, for as long as the context lasts; the file stays.

    Args:
        path: The socket's.
        handler: Answers requests. What it raises, but for `HttpError`, is answered with 500 and its words.

    Raises:
        OSError: It cannot be listened on.
    """
    async with _connections(handler, path) as factory:
        listener = await unix.listen(path, factory)
        try:
            yield
        finally:
            listener.close()


@asynccontextmanager
async def serving_tcp(host: str, port: int, handler: Handler) -> AsyncIterator[int]:
    """Serve at a TCP port for as long as the context lasts; yields the port, which matters where 0 was asked for.

    With 0, each of several addresses has a port of its own, and that of the first is told.

    Args:
        host: The address or name; empty is every address.
        port: The port.
        handler: As for `serving`.

    Raises:
        OSError: It cannot be listened on.
    """
    async with _connections(handler, f"{host}:{port}") as factory:
        listener = await asyncio.get_running_loop().create_server(factory, host or None, port)
        try:
            yield int(listener.sockets[0].getsockname()[1])
        finally:
            listener.close()


@asynccontextmanager
async def _connections(handler: Handler, place: str) -> AsyncIterator[Callable[[], asyncio.StreamReaderProtocol]]:
    """What makes the protocol of a connection; those that are left end with the context."""
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= 2 * CONNECTIONS_MAX:
            writer.close()
            return
        busy = len(connections) >= CONNECTIONS_MAX
        task = asyncio.create_task(_serve(reader, writer, _busy if busy else handler), name=f"request at {place}")
        connections.add(task)
        task.add_done_callback(connections.discard)

    try:
        yield lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=HEAD_MAX), connected)
    finally:
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    try:
        answer = await _answer(reader, writer, handler)
        if answer is not None and answer.stream is not None:
            writer.write(_head(answer))
            await answer.stream(reader, writer)
        elif answer is not None:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                writer.write(_head(answer) + answer.body)
                await writer.drain()
                writer.write_eof()
                await _leave(reader)
    except (OSError, TimeoutError) as error:
        logger.debug("a client has gone: %s", error)
    finally:
        writer.close()


async def _leave(reader: asyncio.StreamReader) -> None:
    """Read what the client still sends: closing before would take the answer away from it."""
    while await reader.read(HEAD_MAX):
        pass


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
) -> Answer | None:  # fmt: skip
    """What to answer; None when the client went away before it had asked."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            request = await _request(reader, writer)
        async with asyncio.timeout(HANDLE_TIMEOUT):
            return await handler(request)
    except asyncio.IncompleteReadError:
        return None
    except HttpError as error:
        return Answer(f"{error.cause}\n".encode(), status=error.status)
    except TimeoutError:
        return Answer(b"out of time\n", status=HTTPStatus.REQUEST_TIMEOUT)
    except OSError:
        return None
    except Exception as error:
        logger.exception("a request failed")
        return Answer(f"{type(error).__name__}: {error}\n".encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise HttpError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request's head has {HEAD_MAX} bytes at most"
        ) from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise HttpError(HTTPStatus.BAD_REQUEST, f"not a request line of HTTP/1.1: {first[:100]!r}")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        again = name.lower() in _ONCE and name.lower() in fields
        if not colon or not name or name != name.strip() or again:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"not a header field: {line[:100]!r}")
        fields[name.lower()] = value.strip()
    target, _, query = words[1].partition("?")
    body = await _body(reader, writer, fields)
    return Request(words[0], unquote(target), dict(parse_qsl(query, keep_blank_values=True)), body, fields)


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Mapping[str, str]) -> bytes:
    if "transfer-encoding" in fields:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "a body is sent with Content-Length, not in chunks")
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise HttpError(HTTPStatus.BAD_REQUEST, f"not a Content-Length: {length[:100]!r}")
    if len(length) > 15 or int(length) > BODY_MAX:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {BODY_MAX} bytes at most")
    if fields.get("expect", "").lower() == "100-continue":  # as curl asks before it sends much
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await reader.readexactly(int(length))


async def _busy(request: Request) -> Answer:
    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"{CONNECTIONS_MAX} requests are being answered already")


def _head(answer: Answer) -> bytes:
    further = "".join(f"{name}: {value}\r\n" for name, value in answer.fields.items())
    if answer.stream is not None:
        return f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n{further}\r\n".encode()
    return (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{further}"
        "Connection: close\r\n\r\n"
    ).encode()
