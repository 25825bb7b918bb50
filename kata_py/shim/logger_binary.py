"""The manager's logger program, `binary://`: it reads a container's outputs from pipes.

Source: containerd `docs/runtime-v2.md` (logging), `core/runtime/v2/logging/logging_unix.go`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from contextlib import ExitStack
from urllib.parse import SplitResult, parse_qsl

from kata_py.sandbox.errors import InvalidArgument
from kata_py.shim.stream import PipeOutput

logger = logging.getLogger(__name__)

READY_TIMEOUT = 10.0  # seconds; containerd's limit
END_TIMEOUT = 12.0  # seconds a logger has to write what it has read, and again to heed SIGTERM

_STDOUT, _STDERR, _READY = 3, 4, 5  # the descriptors a logger finds
_HIGH = 10  # above all of them


class LoggerBinary:
    """A running logger.

    Attributes:
        stdout: The pipe it reads as descriptor 3.
        stderr: The pipe it reads as descriptor 4.
    """

    def __init__(self, path: str, pid: int, stdout: PipeOutput, stderr: PipeOutput) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self._path = path
        self._pid = pid

    @classmethod
    async def start(cls, url: SplitResult, container_id: str, namespace: str) -> LoggerBinary:
        """Start the logger and wait until it is ready: one byte on descriptor 5, or with `binary://` its end.

        Args:
            url: `binary://PATH?KEY=VALUE…`; keys and values become arguments.
            container_id: Given to it as CONTAINER_ID.
            namespace: Given to it as CONTAINER_NAMESPACE.

        Raises:
            InvalidArgument: It cannot be started, or is not ready in time; the message names it.
        """
        with ExitStack() as ours, ExitStack() as failing:
            with ExitStack() as theirs:
                (stdout_read, stdout), (stderr_read, stderr), (ready, ready_write) = os.pipe(), os.pipe(), os.pipe()
                for fd in (stdout_read, stderr_read, ready_write):
                    theirs.callback(os.close, fd)
                ours.callback(os.close, ready)
                for fd in (stdout, stderr):
                    os.set_blocking(fd, False)
                pipes = PipeOutput(stdout), PipeOutput(stderr)
                for pipe in pipes:
                    failing.callback(pipe.close)
                try:
                    pid = _spawn(url, container_id, namespace, (stdout_read, stderr_read, ready_write))
                except OSError as error:
                    raise InvalidArgument(f"logger {url.path}: {error.strerror}") from error
            failing.callback(_kill, pid)
            try:
                async with asyncio.timeout(READY_TIMEOUT):
                    await _readable(ready)
            except TimeoutError:
                raise InvalidArgument(f"logger {url.path} was not ready within {READY_TIMEOUT:g} s") from None
            if url.scheme == "binary-v2" and not os.read(ready, 1):
                raise InvalidArgument(f"logger {url.path} closed its ready descriptor without a word")
            failing.pop_all()
            return cls(url.path, pid, *pipes)

    async def see_off(self) -> None:
        """Wait for the logger's end, its pipes being closed: then SIGTERM, at last SIGKILL. Cancelled: SIGKILL."""
        pidfd = os.pidfd_open(self._pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    async with asyncio.timeout(END_TIMEOUT):
                        return await _readable(pidfd)
                except TimeoutError:
                    logger.warning("logger %s (pid %d) does not end: %s", self._path, self._pid, number.name)
                    signal.pidfd_send_signal(pidfd, number)
            await _readable(pidfd)
        except asyncio.CancelledError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise
        finally:
            os.close(pidfd)
            _reap(self._pid)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _reap(pid)


def _reap(pid: int) -> None:
    os.waitpid(pid, 0)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)


def _spawn(url: SplitResult, container_id: str, namespace: str, fds: tuple[int, int, int]) -> int:
    arguments = [word for pair in parse_qsl(url.query, keep_blank_values=True) for word in pair]
    # Out of the way first: one of them may have a number that another is to get.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for fd in fds]
    try:
        return os.posix_spawn(
            url.path,
            [url.path, *arguments],
            {"CONTAINER_ID": container_id, "CONTAINER_NAMESPACE": namespace},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                *(
                    (os.POSIX_SPAWN_DUP2, fd, number)
                    for fd, number in zip(high, (_STDOUT, _STDERR, _READY), strict=True)
                ),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE],  # Python ignores it, and would bequeath that
        )
    finally:
        for fd in high:
            os.close(fd)
