"""A connection as asyncio's reader and writer, for what is no ttrpc."""

from __future__ import annotations

import asyncio

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address


async def open_stream(address: Address, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the address; the caller closes the writer.

    Args:
        address: Where to.
        timeout: Seconds until the connection must stand.

    Raises:
        ConnectError: It could not be reached.
    """
    connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    connected = asyncio.get_running_loop().create_future()
    given = asyncio.StreamReader()

    def made(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set_result((reader, writer))

    await transport.connect(address, lambda: asyncio.StreamReaderProtocol(given, made), timeout)
    return await connected
