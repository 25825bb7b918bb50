"""The kernel's news of devices, and waiting for one of them.

A wait looks in sysfs and takes news only as a reason to look again. So a device that was there before the wait, one
whose news was lost, and one that appears while we begin to listen are all found, and no event is ever misread.
Source: Linux `lib/kobject_uevent.c`; kata-containers' `src/agent/src/uevent.rs` for the bound and its message.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeVar

from kata_agent.errors import AgentError

_T = TypeVar("_T")

_NETLINK_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h
_KERNEL_GROUP = 1  # udev's own messages go to another
_DATAGRAM_MAX = 1 << 14  # bytes; the kernel's are 2 KiB at most
_BUFFER = 1 << 20  # bytes of news that may wait for us


class Uevent(NamedTuple):
    """A piece of news.

    Attributes:
        action: `add`, `remove`, `change`, `bind`, ...
        devpath: The device's path in sysfs, from `/devices` on.
        subsystem: `block`, `pci`, `net`, ...
    """

    action: str
    devpath: str
    subsystem: str


def parse(datagram: bytes) -> Uevent | None:
    """Read a message of the kernel's; None for anything else, such as udev's."""
    head, *lines = datagram.rstrip(b"\0").split(b"\0")
    if b"@" not in head:
        return None
    fields = dict(line.decode(errors="surrogateescape").partition("=")[::2] for line in lines)
    if not fields.get("ACTION") or not fields.get("DEVPATH"):
        return None
    return Uevent(fields["ACTION"], fields["DEVPATH"], fields.get("SUBSYSTEM", ""))


def _open() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((0, _KERNEL_GROUP))
    except OSError:
        sock.close()
        raise
    return sock


class _Subscription:
    def __init__(self, subsystems: Collection[str]) -> None:
        self.subsystems = subsystems
        self.news = asyncio.Event()


class Uevents:
    """Listens while somebody waits, and only then: an idle guest is not woken by its kernel.

    Args:
        open_socket: Gives a socket that does not block and on which the kernel's datagrams arrive.
    """

    def __init__(self, open_socket: Callable[[], socket.socket] = _open) -> None:
        self._open = open_socket
        self._socket: socket.socket | None = None
        self._subscriptions: list[_Subscription] = []

    async def wait(
        self, look: Callable[[], _T | None], what: str, *, subsystems: Collection[str], timeout: float
    ) -> _T:
        """Wait until a look finds something; it is looked at once, and again at each news.

        Args:
            look: Looks in sysfs; None when it is not there.
            what: What is waited for, in words.
            subsystems: News of which are a reason to look again.
            timeout: Seconds.

        Raises:
            AgentError: It did not appear in time, or the kernel's news cannot be had.
        """
        found = look()
        if found is not None:
            return found
        try:
            with self._subscribed(subsystems) as news:
                async with asyncio.timeout(timeout):
                    while (found := look()) is None:
                        await news.wait()
                        news.clear()
        except TimeoutError:
            raise AgentError(f"Timeout after {timeout:g} s waiting for uevent of {what}") from None
        except OSError as error:
            raise AgentError(f"cannot wait for {what}: {error}") from error
        return found

    @contextlib.contextmanager
    def _subscribed(self, subsystems: Collection[str]) -> Iterator[asyncio.Event]:
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = self._open()
            loop.add_reader(self._socket, self._receive, self._socket)
        subscription = _Subscription(subsystems)
        self._subscriptions.append(subscription)
        try:
            yield subscription.news
        finally:
            self._subscriptions.remove(subscription)
            if not self._subscriptions:
                loop.remove_reader(self._socket)
                self._socket.close()
                self._socket = None

    def _receive(self, sock: socket.socket) -> None:
        while True:
            try:
                event = parse(sock.recv(_DATAGRAM_MAX))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._tell(None)  # some were lost: all look again
            else:
                if event is not None:
                    self._tell(event)

    def _tell(self, event: Uevent | None) -> None:
        for subscription in self._subscriptions:
            if event is None or event.subsystem in subscription.subsystems:
                subscription.news.set()
