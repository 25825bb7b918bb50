"""Hybrid vsock: a guest's vsock ports behind one Unix socket of its VMM.

The host connects to the VMM's socket, writes `CONNECT <port>` and a newline, and reads a line that begins
with `OK`; from then on it talks to the guest. The other way, the VMM connects to `<socket>_<port>` when the
guest dials the host. Source: Firecracker `docs/vsock.md`, kata `protocols/client/client.go`.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

from kata_py.ttrpc.transport import unix

if TYPE_CHECKING:
    from kata_py.ttrpc.transport import Listener, ProtocolFactory

_LINE_MAX: Final = 64  # bytes; the line is `OK <port>`


async def connect(path: str, port: int, factory: ProtocolFactory) -> None:
    """Connect a protocol to a guest's port.

    Raises:
        OSError: The VMM cannot be reached; ECONNREFUSED when nobody listens at the port (yet).
    """
    loop = asyncio.get_running_loop()
    sock = await unix.open_socket(path)
    try:
        await loop.sock_sendall(sock, b"CONNECT %d\n" % port)
        line = b""
        while not line.endswith(b"\n"):
            # One byte at a time: what follows the line is the guest's.
            byte = await loop.sock_recv(sock, 1)
            if not byte:
                raise OSError(errno.ECONNREFUSED, f"the VMM closed the connection: nobody listens at port {port}")
            line += byte
            if len(line) > _LINE_MAX:
                break
        if not line.startswith(b"OK"):
            raise OSError(errno.EPROTO, f"the VMM answered {line!r} instead of OK")
    except BaseException:
        sock.close()
        raise
    await loop.create_unix_connection(factory, sock=sock)


async def listen(path: str, port: int, factory: ProtocolFactory) -> Listener:
    """Listen for connections that the guest makes to a port of the host.

    Raises:
        OSError: The socket cannot be made.
    """
    return await unix.listen(f"{path}_{port}", factory)
