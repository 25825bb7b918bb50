"""The sockets that shims listen at, and a note of each: made before the socket is, and gone after it.

Under CRI-O nobody runs `delete` for a shim that was killed, and its socket's name is a hash. The note says whose it is:
a link in a directory that they share, named by sandbox and socket, to the bundle. It leads nowhere once the manager
has removed that. On the start path: the standard library's cheap part only.
"""
# pathlib would cost the start path 5 ms.
# ruff: noqa: PTH103, PTH104, PTH108, PTH110, PTH208, PTH211

from __future__ import annotations

import os
from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

ROOT = "/run/vc/shims"
_BEFORE_SOCKET = "@"  # no id has it
_SLASH = "%"
_BEING_MADE = ".new"


def note(id: str, path: str, bundle: str, root: str = ROOT) -> None:
    """Note that a shim is about to listen; an earlier note of sandbox and socket is replaced.

    Args:
        id: The sandbox's id.
        path: The socket's path.
        bundle: The bundle directory.
        root: Where all notes are; made if missing.

    Raises:
        OSError: It cannot be noted.
    """
    noted = f"{root}/{id}{_BEFORE_SOCKET}{path.replace('/', _SLASH)}"
    os.makedirs(root, 0o700, exist_ok=True)
    try:
        os.symlink(bundle, noted)
    except FileExistsError:
        _unlink(noted + _BEING_MADE)
        os.symlink(bundle, noted + _BEING_MADE)
        os.rename(noted + _BEING_MADE, noted)


def forget(path: str, root: str = ROOT) -> None:
    """Remove the note of a socket that is gone."""
    for name in _names(root):
        if _meaning(name)[1] == path:
            _unlink(f"{root}/{name}")


def forsaken(root: str = ROOT) -> list[tuple[str, str]]:
    """Sandboxes and sockets of which neither a shim nor the bundle is there any more. Blocks."""
    found = []
    for name in _names(root):
        id, path = _meaning(name)
        if not os.path.exists(f"{root}/{name}") and probe(path) is None:
            found.append((id, path))
    return found


def sweep(root: str = ROOT) -> None:
    """Remove those sockets, and then their notes. Blocks.

    Raises:
        OSError: One cannot be removed; its note stays.
    """
    for _, path in forsaken(root):
        _unlink(path)
        forget(path, root)


def probe(path: str) -> int | None:
    """The pid of the process that listens at the path, or None when nobody does.

    It is the process that called listen(2) last: the daemon, once it runs; before that the starter.
    """
    peer = socket(AF_UNIX, SOCK_STREAM)
    try:
        peer.setblocking(False)
        peer.connect(path)
        return int.from_bytes(peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], "little")
    except BlockingIOError:  # the backlog is full: alive, if busy, and nobody says who
        return 0
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        peer.close()


def remove_dead(path: str) -> None:
    """Remove the socket unless somebody listens on it."""
    if probe(path) is None:
        _unlink(path)


def _names(root: str) -> list[str]:
    try:
        return sorted(os.listdir(root))
    except FileNotFoundError:
        return []


def _meaning(name: str) -> tuple[str, str]:
    """The sandbox and the socket that a note is of. One that was being made for another's place is of both, too."""
    id, _, path = name.removesuffix(_BEING_MADE).partition(_BEFORE_SOCKET)
    return id, path.replace(_SLASH, "/")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
