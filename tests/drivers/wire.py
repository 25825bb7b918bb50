"""The network namespace of a machine that is none, and interfaces in it.

An interface is a tap device of the namespace, with the hardware address asked for and a name that is not the final
one, and a program that passes frames between it and the tap device given.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread

from kata_py.network.nic import Nic
from kata_py.network.tap import open_tap
from kata_py.resource import mount, process
from kata_py.resource.blocking import off_loop
from kata_py.resource.journal import Journal
from kata_py.resource.netns import NetworkNamespace

_SIOCSIFHWADDR = 0x8924
_ARPHRD_ETHER = 1
_FIRST_NUMBER = 100  # eth100: a name that no pod's interface has


class Wires:
    """A fresh network namespace; made by `fresh`."""

    def __init__(self, descriptor: int) -> None:
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._namespace = NetworkNamespace.at(self.path)
        self._numbers = itertools.count(_FIRST_NUMBER)

    @asynccontextmanager
    async def interface(self, nic: Nic, journal: Journal, whose: Path) -> AsyncIterator[None]:
        """An interface of the machine, for as long as the context lasts."""
        async with AsyncExitStack() as stack:
            with ExitStack() as handover:
                guest = await off_loop(self._namespace.run, self._make, nic.mac, handover)
                line = [sys.executable, "-I", "-S", str(Path(__file__).with_name("frames.py")), str(whose)]
                line += map(str, (guest, *nic.tap_fds))
                spawning = process.spawn(journal, "nic", line, pass_fds=(guest, *nic.tap_fds))
                await stack.enter_async_context(spawning)
            yield

    def _make(self, mac: str, handover: ExitStack) -> int:
        name = f"eth{next(self._numbers)}"
        (descriptor,) = open_tap(name, 1, handover)
        request = struct.pack("16sH6s16x", name.encode(), _ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))
        with socket.socket() as sock:
            fcntl.ioctl(sock, _SIOCSIFHWADDR, request)
        return descriptor


@contextmanager
def fresh() -> Iterator[Wires]:
    """A network namespace of our own making; it lives for as long as the context, or a process in it."""
    opened: list[int] = []

    def make() -> None:
        mount.unshare(mount.CLONE_NEWNET)
        opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = Thread(target=make, name="fresh network namespace")
    thread.start()
    thread.join()
    try:
        yield Wires(opened[0])
    finally:
        os.close(opened[0])
