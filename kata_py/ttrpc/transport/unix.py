"""Unix sockets, in the file system or (`@name`) in the abstract namespace."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kata_py.ttrpc.transport import Listener, ProtocolFactory

PATH_MAX: Final = 107
"""Bytes a socket's path may have; `sun_path` is 108 with the final NUL. Source: unix(7)."""

_BACKLOG: Final = 128


async def open_socket(path: str) -> socket.socket:
    """Connect to the socket at the path.

    Raises:
        OSError: It cannot be reached; ENAMETOOLONG for a path no socket can have.
    """
    name = _socket_name(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, name)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect(path: str, factory: ProtocolFactory) -> None:
    """Connect a protocol to the socket at the path.

    Raises:
        OSError: It cannot be reached.
    """
    sock = await open_socket(path)
    await asyncio.get_running_loop().create_unix_connection(factory, sock=sock)


async def listen(path: str, factory: ProtocolFactory) -> Listener:
    """Listen at the path, for this user alone. A socket that nobody listens at any more is replaced.

    Raises:
        OSError: The path is in use or cannot be made.
    """
    name = _socket_name(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before bind, so that it never stands open to others
        try:
            sock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _stale(path):
                raise
            os.unlink(path)  # noqa: PTH108 pathlib would cost a guest's boot an import
            sock.bind(name)
        return await asyncio.get_running_loop().create_unix_server(factory, sock=sock, backlog=_BACKLOG)
    except BaseException:
        sock.close()
        raise


def _socket_name(path: str) -> str:
    length = len(os.fsencode(path))
    if length > PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path has at most {PATH_MAX} bytes, this one {length}")
    return "\0" + path[1:] if path.startswith("@") else path


def _stale(path: str) -> bool:
    # A file that is no socket refuses connections just the same, and is none of our business.
    if path.startswith("@") or not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
