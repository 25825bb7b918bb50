"""The shim's listening socket: its name, and how it is taken.

On the start path: the standard library's cheap part only. `_socket` is the C half of `socket`, whose Python
half costs 3 ms; hashlib would load OpenSSL, another 3.
"""
# pathlib would cost the start path 5 ms.
# ruff: noqa: PTH102, PTH103, PTH108, PTH120

from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SO_ACCEPTCONN, SOCK_STREAM, SOL_SOCKET, socket

try:
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:  # since Python 3.12
    from _sha2 import sha256  # type: ignore[import-not-found]

from kata_py.sandbox.shims import probe as probe
from kata_py.sandbox.shims import remove_dead as remove_dead
from kata_py.shim.errors import ListenerError

DIRECTORY = "/run/containerd/s"
PATH_LIMIT = 106  # bytes; containerd's own limit, the kernel's is 107 (`containerd: pkg/shim/util_unix.go`)
BACKLOG = 128
LISTEN_FD = 3  # where `start` leaves the socket for the daemon, as Kata Go's does


def path_of(address: str, namespace: str, sandbox_id: str) -> str:
    """Where a sandbox's shim listens: the same for every container of the sandbox.

    Args:
        address: The manager's gRPC address; empty under CRI-O.
        namespace: The manager's namespace.
        sandbox_id: The sandbox's id.
    """
    joined = os.path.normpath("/".join(part for part in (address, namespace, sandbox_id) if part))
    if joined.startswith("//"):  # POSIX lets two leading slashes stand, Go's path cleaning does not
        joined = joined[1:]
    return f"{DIRECTORY}/{sha256(joined.encode()).hexdigest()}"


def take(path: str) -> socket | None:
    """Bind and listen; the file of a dead listener is replaced.

    Returns:
        The listening socket, or None when a live process listens there.

    Raises:
        ListenerError: The path is too long.
        OSError: The directory or the socket cannot be made.
    """
    length = len(os.fsencode(path))
    if length > PATH_LIMIT:
        raise ListenerError(f"socket path of {length} bytes, at most {PATH_LIMIT} fit: {path}")
    directory = os.path.dirname(path)
    os.makedirs(os.path.dirname(directory), 0o711, exist_ok=True)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    listening = socket(AF_UNIX, SOCK_STREAM)
    try:
        if not _bind(listening, path):
            listening.close()
            return None
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _bind(listening: socket, path: str) -> bool:
    umask = os.umask(0o177)
    try:
        listening.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise OSError(error.errno, error.strerror, path) from None
        if probe(path) is not None:
            return False
        os.unlink(path)
        listening.bind(path)
    finally:
        os.umask(umask)
    return True


def is_listening(fd: int) -> bool:
    """Whether the descriptor is a listening socket."""
    try:
        inherited = socket(fileno=os.dup(fd))
    except OSError:
        return False
    try:
        return bool(inherited.getsockopt(SOL_SOCKET, SO_ACCEPTCONN))
    finally:
        inherited.close()
