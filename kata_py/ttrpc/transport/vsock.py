"""vsock: sockets between a host and its virtual machines. Source: vsock(7)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kata_py.ttrpc.transport import Listener, ProtocolFactory

_BACKLOG: Final = 128


async def connect(cid: int, port: int, factory: ProtocolFactory) -> None:
    """Connect a protocol to a port of the machine with that context id.

    Raises:
        OSError: It cannot be reached; ENODEV where the host has no vsock.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (cid, port))
    except BaseException:
        sock.close()
        raise
    await loop.create_connection(factory, sock=sock)


async def listen(cid: int, port: int, factory: ProtocolFactory) -> Listener:
    """Listen at a port; a negative context id is any.

    Raises:
        OSError: The port is in use, or there is no vsock here.
    """
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        sock.bind((socket.VMADDR_CID_ANY if cid < 0 else cid, port))
        return await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=_BACKLOG)
    except BaseException:
        sock.close()
        raise
