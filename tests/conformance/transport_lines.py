"""The lines that the transports' checks run over."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import Address, SerialAddress
from kata_py.ttrpc.transport import Listener, ProtocolFactory, memory
from kata_py.ttrpc.transport.serial import SerialPort

PATIENCE = 20.0  # seconds to connect
GUEST_PORT = 1024


class AddressLine:
    """Listens and connects by address."""

    def __init__(self, listening: Address, connecting: Address | None = None) -> None:
        self.listening = listening
        self.connecting = connecting or listening

    async def listen(self, factory: ProtocolFactory) -> Listener:
        return await transport.listen(self.listening, factory)

    async def connect(self, factory: ProtocolFactory) -> None:
        await transport.connect(self.connecting, factory, PATIENCE)


class FakeVmm:
    """A VMM with a hybrid vsock: it reads `CONNECT <port>`, answers `OK <port>`, and passes bytes on.

    The guest's vsock ports are Unix sockets in the same directory.
    """

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "vm.sock")
        self.greeting = b"OK 1073741824\n"
        self._directory = directory
        self._sessions: set[asyncio.Task[None]] = set()

    def guest_socket(self, port: int) -> str:
        return str(self._directory / f"port-{port}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeVmm]:
        server = await asyncio.start_unix_server(self._host_connected, self.socket)
        try:
            yield self
        finally:
            server.close()
            for session in self._sessions:
                session.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _host_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        assert session is not None
        self._sessions.add(session)
        async with AsyncExitStack() as stack:
            stack.callback(writer.transport.abort)
            word, port = (await reader.readline()).split()
            assert word == b"CONNECT"
            try:
                guest_reader, guest_writer = await asyncio.open_unix_connection(self.guest_socket(int(port)))
            except OSError:
                return  # what Firecracker does when nobody listens at the port: it closes
            stack.callback(guest_writer.transport.abort)
            writer.write(self.greeting)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, guest_writer))
                group.create_task(_pass_on(guest_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.transport.abort()


class SerialLine:
    """A pseudo-terminal: its master is the guest's port, its other side is opened and closed by the host.

    Like a virtio port, the master hangs up while the other side is closed, and comes back when it is opened.
    """

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)  # from now on the master is hung up

    async def listen(self, factory: ProtocolFactory) -> Listener:
        return SerialPort(self.master, factory)

    async def connect(self, factory: ProtocolFactory) -> None:
        await transport.connect(SerialAddress(self.path), factory, PATIENCE)


class MemoryLine:
    """Joins protocols in memory."""

    def __init__(self) -> None:
        self._factory: ProtocolFactory | None = None

    async def listen(self, factory: ProtocolFactory) -> Listener:
        self._factory = factory
        return self

    def close(self) -> None:
        self._factory = None

    async def connect(self, factory: ProtocolFactory) -> None:
        assert self._factory is not None
        here, there = factory(), self._factory()
        assert isinstance(here, asyncio.BufferedProtocol)
        assert isinstance(there, asyncio.BufferedProtocol)
        memory.join(here, there)
