"""One GET at a Unix socket, with a bound for the time and for the size of the answer.

It asks by HTTP/1.0, so that servers of every make answer without chunks. Source: RFC 9112, 2.3 and 6.3.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kata_py.ttrpc.transport import unix

HEAD_MAX = 1 << 14  # bytes of status line and header fields


class ClientError(Exception):
    """The server has not answered, or with something that is no answer; says what happened, not who did it."""


class Gone(ClientError):
    """There is no such socket any more, or nobody listens at it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: The status code.
        body: What it sent.
    """

    status: int
    body: bytes


async def get(path: str, target: str, *, timeout: float, limit: int) -> Reply:
    """Ask the server behind a socket.

    Args:
        path: The socket's.
        target: Path and query, encoded.
        timeout: Seconds for all of it.
        limit: Bytes that the answer's body may have.

    Raises:
        ClientError: It did not answer, not in time, or with more than that.
        Gone: Nobody listens there.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _get(path, target, limit)
    except TimeoutError:
        raise ClientError(f"no answer within {timeout:g} s") from None
    except asyncio.IncompleteReadError as error:
        raise ClientError(f"the answer broke off after {len(error.partial)} bytes") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Gone("nobody listens at its socket") from error
    except OSError as error:
        raise ClientError(error.strerror or str(error)) from error


async def _get(path: str, target: str, limit: int) -> Reply:
    reader, writer = await asyncio.open_unix_connection(sock=await unix.open_socket(path), limit=HEAD_MAX)
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise ClientError(f"the answer's head has more than {HEAD_MAX} bytes") from None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdecimal()):
            raise ClientError(f"not a status line of HTTP/1.1: {first[:100]!r}")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await _body(reader, fields.get("content-length"), limit)
        return Reply(int(status), body)
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, length: str | None, limit: int) -> bytes:
    """The body: as long as announced, else to the end of the connection."""
    if length is not None:
        if not (length.isascii() and length.isdecimal()) or len(length) > 15:
            raise ClientError(f"not a Content-Length: {length[:100]!r}")
        if int(length) > limit:
            raise ClientError(f"the answer has more than {limit} bytes")
        return await reader.readexactly(int(length))
    body = bytearray()
    while piece := await reader.read(1 << 16):
        body += piece
        if len(body) > limit:
            raise ClientError(f"the answer has more than {limit} bytes")
    return bytes(body)
