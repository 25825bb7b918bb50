"""A vsock device in user space: `vhost-device-vsock`, which offers the guest's ports on a Unix socket.

For hosts whose kernel has no vhost-vsock. Source: rust-vmm `vhost-device/vhost-device-vsock/README.md`;
inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from kata_py.hypervisor.api import HypervisorError
from kata_py.resource.journal import Journal
from kata_qemu import privileges
from kata_qemu.lines import Tail
from kata_qemu.process import Program, running

NAME = "vhost-device-vsock"
GUEST_CID = 3  # every machine has a device of its own, so all may be number 3
START_TIMEOUT = 5.0  # seconds until the program must listen

_IN_CREATE = 0x100

log = logging.getLogger(__name__)


@asynccontextmanager
async def serving(directory: Path, journal: Journal, tail: Tail) -> AsyncIterator[tuple[Program, Path, socket.socket]]:
    """Run the device; gives the program, the Unix socket of the guest's ports, and QEMU's connection to it.

    Args:
        directory: Where its sockets go.
        journal: Where the process is written down.
        tail: Where its last lines are kept.

    Raises:
        HypervisorError: There is no such program, or it does not start.
    """
    binary = shutil.which(NAME)
    if not binary:
        raise HypervisorError(
            "qemu", f"agent_channel is hybrid-vsock, but there is no {NAME} on the path",
            hint=f'install {NAME}, or set agent_channel to "auto"',
        )  # fmt: skip

    def on_line(pid: int, line: str) -> None:
        tail.add(f"{NAME}: {line}")
        log.warning("%s", line)

    control, ports = directory / "vhost-vsock.sock", directory / "kata.hvsock"
    line = [binary, f"--guest-cid={GUEST_CID}", f"--socket={control}", f"--uds-path={ports}"]
    async with AsyncExitStack() as stack:
        with _creation(control) as created:
            program = await stack.enter_async_context(
                running(journal, NAME, line, confinement=privileges.of_helper(), on_line=on_line)
            )
            await _first(created, program)
        with socket.socket(socket.AF_UNIX) as sock:
            await _connect(sock, control)
            yield program, ports, sock


async def _first(created: asyncio.Event, program: Program) -> None:
    """Wait until the program's socket is there, unless the program ends before."""
    tasks = [asyncio.create_task(created.wait()), asyncio.create_task(program.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1] in done:
            raise HypervisorError("qemu", await program.wait())
        if not done:
            raise HypervisorError(
                "qemu", f"{NAME} did not make its socket within {START_TIMEOUT:g} s", budget=START_TIMEOUT
            )
    finally:
        for task in tasks:
            task.cancel()


async def _connect(sock: socket.socket, path: Path) -> None:
    """Connect to the program, which binds its socket itself: between bind and listen it refuses."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                try:
                    return sock.connect(bytes(path))
                except ConnectionRefusedError:
                    await asyncio.sleep(0.001)
    except TimeoutError:
        raise HypervisorError(
            "qemu", f"{NAME} did not listen at {path} within {START_TIMEOUT:g} s", budget=START_TIMEOUT
        ) from None


@contextmanager
def _creation(path: Path) -> Iterator[asyncio.Event]:
    """An event that tells when the path comes into being."""
    libc = ctypes.CDLL(None, use_errno=True)
    loop = asyncio.get_running_loop()
    created = asyncio.Event()
    watch = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def on_change() -> None:
        os.read(watch, 4096)
        if path.exists():
            created.set()

    try:
        _checked(libc.inotify_add_watch(watch, bytes(path.parent), _IN_CREATE))
        loop.add_reader(watch, on_change)
        yield created
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"inotify: {os.strerror(ctypes.get_errno())}")
    return result
