"""`start`: print the address of the sandbox's shim, after starting it unless it runs already.

A manager runs it for every container and waits: the socket listens before the address is printed, and the
daemon does all that takes time afterwards. Nothing is read from stdin: flags and environment say all that is
needed, up to containerd 2.4.
"""
# pathlib would cost the start path 5 ms.
# ruff: noqa: PTH108

from __future__ import annotations

import os
import signal
import sys
from _socket import socket

from kata_py.sandbox import shims
from kata_py.shim import bundle, listener
from kata_py.shim.errors import ListenerError, ShimError
from kata_py.shim.invocation import Invocation


def start(invocation: Invocation) -> str:
    """Start the sandbox's shim, or find the one that serves the pod already.

    Returns:
        The address to print; the bundle's `address` holds it too.

    Raises:
        ShimError: Not root, or the ids or config.json are not valid, or the pod's sandbox has no shim.
        OSError: Socket, process or files cannot be made. Nothing is left behind.
    """
    if os.geteuid() != 0:
        raise ShimError("not root: mounts, namespaces and virtual machines are its to make")
    bundle.check_id("id", invocation.id)
    bundle.check_id("namespace", invocation.namespace)
    directory = invocation.bundle
    _, sandbox_id = bundle.membership(directory, invocation.id)
    path = invocation.socket or listener.path_of(invocation.address, invocation.namespace, sandbox_id)
    address = f"unix://{path}"
    if sandbox_id != invocation.id:
        if listener.probe(path) is None:
            raise ListenerError(f"sandbox {sandbox_id} of container {invocation.id} has no live shim at {path}")
    elif not bundle.lock(directory):
        raise ListenerError(f"another process is starting or deleting the shim of {invocation.id} right now")
    elif (listening := _take(path, sandbox_id, directory)) is not None:
        _start_daemon(invocation, directory, listening.fileno(), address)
        return address
    # A live shim: the pod's, or this very sandbox's, which the manager forgot; Create will tell what it holds.
    bundle.write(directory, bundle.ADDRESS, address)
    return address


def _take(path: str, sandbox_id: str, directory: str) -> socket | None:
    """Listen, unless somebody does already; noted first, so that the socket of a shim that is killed is found."""
    shims.note(sandbox_id, path, directory)
    try:
        return listener.take(path)
    except BaseException:
        shims.forget(path)
        raise


def _start_daemon(invocation: Invocation, directory: str, listen_fd: int, address: str) -> None:
    pid = 0
    try:
        pid = _spawn(invocation, listen_fd)
        bundle.write(directory, bundle.PID, str(pid))
        bundle.write(directory, bundle.ADDRESS, address)
    except BaseException:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        bundle.remove(directory, bundle.PID, bundle.ADDRESS)
        path = address.removeprefix("unix://")
        os.unlink(path)
        shims.forget(path)
        raise


def _spawn(invocation: Invocation, listen_fd: int) -> int:
    """Run this launcher again as the daemon: a session of its own, nothing of the manager's but the socket.

    Links to it are followed: the daemon is of this version, though an upgrade may change the link in this moment.
    """
    launcher = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    if launcher and launcher[-1] == sys.argv[0]:
        launcher[-1] = os.path.realpath(launcher[-1])
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *launcher, *invocation.rest],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, listen_fd, listener.LISTEN_FD),
        ],
        setsid=True,
    )
