"""Unix sockets that are bound before the program that serves them starts, and passed to it by descriptor.

So nobody has to wait for a socket to appear: a connection made early is served as soon as the program is up.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kata_py.hypervisor.api import HypervisorError

PATH_MAX = 107  # bytes, and a zero: sockaddr_un


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at the path, closed when the context ends; the path stays.

    Raises:
        HypervisorError: The path is longer than a socket's can be.
        OSError: It cannot be bound, with its path.
    """
    if len(bytes(path)) > PATH_MAX:
        raise HypervisorError(
            "qemu",
            f"socket path too long: {path} has {len(bytes(path))} bytes, a Unix socket's has {PATH_MAX} at most",
            hint="shorten the sandbox's id, or the directory for machines",
        )
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.bind(bytes(path))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        sock.listen(1)
        yield sock


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """A socket connected to one that listens at the path; it need not have been served yet."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(bytes(path))
        sock.setblocking(False)
        yield sock
