"""A serial line: one stream of bytes between a host and its guest, which knows no connections.

On the host it is the Unix socket of QEMU's character device; on the guest a device such as `/dev/vport0p1`.
While the host has the socket closed, the guest reads end-of-file and polls as hung up; when it is opened
again, nothing but a wake-up tells. So on the guest:

- A connection begins when the line is open, and ends with end-of-file; what was unsent by then is dropped.
- The next opening begins a new connection, with nothing kept of the one before.
- A host that closes and opens again before the guest has run at all is not noticed, nor one that does so within
  0.05 s of opening. So whoever takes over a line waits for a first answer (`Health/Check`), and if none comes,
  closes, pauses and connects again.

Edge-triggered polling makes waiting free: the kernel wakes us at each change, and a line that stays hung up,
which level-triggered polling would report for ever, is silent.
Source: Linux `drivers/char/virtio_console.c`, QEMU `hw/char/virtio-serial-bus.c`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import stat
from typing import TYPE_CHECKING, Final

from kata_py.ttrpc.address import SerialAddress
from kata_py.ttrpc.transport import unix
from kata_py.ttrpc.transport.buffered import BufferedTransport

if TYPE_CHECKING:
    from kata_py.ttrpc.transport import ProtocolFactory

logger = logging.getLogger(__name__)

_READS_PER_TURN: Final = 16  # then other work of the event loop gets its turn
_HEAD: Final = 4096  # bytes read before it is clear that there is a connection
_OPENING_TIMEOUT: Final = 0.05  # seconds from a connection's first bytes to the word that the line is open
_VIRTIO_PORTS: Final = "/sys/class/virtio-ports"


async def connect(address: SerialAddress, factory: ProtocolFactory) -> None:
    """Connect a protocol to the line: to its Unix socket, or by its device.

    Raises:
        OSError: There is no such thing, or it is in use, or (device) its other side is closed.
    """
    path = device_path(address)
    if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 pathlib would cost a guest's boot an import
        await unix.connect(path, factory)
    elif not SerialPort(_open(path), factory, once=True).is_open:
        raise OSError(errno.ECONNREFUSED, "the other side of the line is closed")


def listen(address: SerialAddress, factory: ProtocolFactory) -> SerialPort:
    """Serve at a device whoever opens the other side of the line.

    Raises:
        OSError: There is no such device, or it is in use.
    """
    return SerialPort(_open(device_path(address)), factory)


def device_path(address: SerialAddress, virtio_ports: str = _VIRTIO_PORTS) -> str:
    """The path of a line's device; a virtio port is found by its name.

    Raises:
        OSError: No port has that name.
    """
    if not address.port_name:
        return address.path
    names: dict[str, str] = {}
    try:
        for port in os.scandir(virtio_ports):
            with open(f"{port.path}/name", encoding="utf-8") as file:  # noqa: PTH123 as above
                names[file.read().strip()] = port.name
    except FileNotFoundError:
        pass  # no virtio-serial driver, or a port without a name
    if address.port_name not in names:
        found = ", ".join(sorted(filter(None, names))) or "none"
        raise OSError(errno.ENOENT, f"no virtio port has this name; found: {found}")
    return f"/dev/{names[address.port_name]}"


def _open(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISCHR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENOTTY, "not a character device")
    return fd


class SerialPort:
    """A device that is served: one connection after another.

    Args:
        fd: The device, open for reading and writing without blocking; closed with the port.
        factory: Makes the protocol of each connection.
        once: Whether only a connection that can begin at once is wanted.
    """

    def __init__(self, fd: int, factory: ProtocolFactory, *, once: bool = False) -> None:
        self._fd = fd
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._transport: SerialTransport | None = None
        self._accepting = True
        if os.isatty(fd):
            import tty

            tty.setraw(fd)
        self._edges = select.epoll()
        self._edges.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        self._loop.add_reader(self._edges.fileno(), self._changed)
        self._changed()
        if once:
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    @property
    def hung_up(self) -> bool:
        """Whether the line's other side is closed."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def close(self) -> None:
        """Begin no more connections; the device is closed with the present one."""
        self._accepting = False
        if self._transport is None and not self._edges.closed:
            self._loop.remove_reader(self._edges.fileno())
            self._edges.close()
            os.close(self._fd)

    def read(self, space: memoryview) -> int:
        """Read; 0 is end-of-file.

        Raises:
            BlockingIOError: Nothing is there.
            OSError: The device is gone.
        """
        try:
            return os.readv(self._fd, [space])
        except OSError as error:
            if error.errno == errno.EIO:  # what a terminal says for end-of-file
                return 0
            raise

    def write(self, data: memoryview) -> int:
        """Write what fits.

        Raises:
            BlockingIOError: Nothing fits.
            OSError: The device is gone.
        """
        return os.write(self._fd, data)

    def ended(self) -> None:
        """The transport tells that its connection is over."""
        self._transport = None
        if self._accepting:
            self._loop.call_soon(self._changed)
        else:
            self.close()

    def _changed(self) -> None:
        if self._edges.closed:
            return
        self._edges.poll(0)  # takes the edges, so that they do not wake us again
        if self._transport is None and self._accepting:
            self._begin()
        if self._transport is not None:
            self._transport.changed()

    def _begin(self) -> None:
        head = bytearray(_HEAD)
        count = 0
        if self.hung_up:
            # Bytes may be here before the word that the line is open: they come by another queue.
            try:
                count = self.read(memoryview(head))
            except BlockingIOError:
                return
            except OSError as error:
                logger.error("the serial line is gone: %s", error)
                self.close()
                return
            if not count:
                return
        protocol = self._factory()
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._transport = SerialTransport(protocol, self)
        protocol.connection_made(self._transport)
        self._transport.feed(memoryview(head)[:count])


class SerialTransport(BufferedTransport):
    """One connection: from the line's opening to its end-of-file.

    Args:
        protocol: Who reads and writes.
        port: The device.
    """

    def __init__(self, protocol: asyncio.BufferedProtocol, port: SerialPort) -> None:
        super().__init__(protocol)
        self._port = port
        self._was_open = not port.hung_up
        self._opening: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something happened on the line."""
        self._was_open = self._was_open or not self._port.hung_up
        self._read()
        self._flush()

    def feed(self, data: memoryview) -> None:
        """Give the protocol what was read before there was a connection."""
        while len(data):
            space = self._protocol.get_buffer(-1)
            assert isinstance(space, memoryview)
            count = min(len(space), len(data))
            space[:count] = data[:count]
            self._protocol.buffer_updated(count)
            data = data[count:]

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            if not self.is_reading():
                return
            space = self._protocol.get_buffer(-1)
            assert isinstance(space, memoryview)
            try:
                count = self._port.read(space)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(error)
                return
            if not count:
                self._end_of_file()
                return
            self._protocol.buffer_updated(count)
        self._loop.call_soon(self._read)

    def _end_of_file(self) -> None:
        if self._was_open:
            self._end(None)
        elif self._opening is None:  # its bytes came first; the word that it is open must follow
            self._opening = self._loop.call_later(_OPENING_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if not self._was_open:
            self._end(None)

    def _transmit(self, data: memoryview) -> int:
        try:
            return self._port.write(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end(error)
            return 0

    def _release(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self._port.ended()
