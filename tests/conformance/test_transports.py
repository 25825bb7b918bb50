"""What all transports do alike, and then what each does by itself."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time

import pytest

from kata_py.ttrpc import transport
from kata_py.ttrpc.address import HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, ListenError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.transport import serial
from kata_py.ttrpc.transport.serial import SerialPort
from tests.conformance.transport import CHECKS, PATIENCE, Acceptor, End, accepting, joined
from tests.conformance.transport_lines import GUEST_PORT, AddressLine, FakeVmm, MemoryLine, SerialLine


@pytest.fixture
def directory(short_tmp):
    path = short_tmp / str(time.monotonic_ns())
    path.mkdir()
    return path


@pytest.fixture
async def vmm(directory):
    async with FakeVmm(directory).running() as vmm:
        yield vmm


@pytest.fixture(params=["unix", "abstract", "hybrid vsock", "serial", "memory"])
def line(request, directory):
    match request.param:
        case "unix":
            return AddressLine(UnixAddress(str(directory / "line.sock")))
        case "abstract":
            return AddressLine(UnixAddress(f"@kata-py-{directory.name}"))
        case "hybrid vsock":
            vmm = request.getfixturevalue("vmm")
            return AddressLine(UnixAddress(vmm.guest_socket(GUEST_PORT)), HybridVsockAddress(vmm.socket, GUEST_PORT))
        case "serial":
            return SerialLine()
        case _:
            return MemoryLine()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_every_transport_keeps_its_word(line, check):
    await check(line)


async def refused(address, **options):
    """The words of the error that connecting ends with."""
    with pytest.raises(ConnectError) as caught:
        await transport.connect(address, End, options.pop("timeout", PATIENCE), **options)
    assert str(address) in str(caught.value)
    return str(caught.value)


async def not_listened(address):
    """The words of the error that listening ends with."""
    with pytest.raises(ListenError) as caught:
        await transport.listen(address, End)
    assert str(address) in str(caught.value)
    return str(caught.value)


async def echoing(listener_address):
    async def echo(payload, context):
        return payload

    server = Server()
    server.add_raw("s", "Echo", echo)
    await server.listen(listener_address)
    return server


class TestUnix:
    async def test_a_socket_is_its_users_alone(self, directory):
        path = directory / "a.sock"
        listener = await transport.listen(UnixAddress(str(path)), End)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        listener.close()

    async def test_a_socket_that_nobody_listens_at_any_more_is_replaced(self, directory):
        path = str(directory / "a.sock")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        async with accepting(AddressLine(UnixAddress(path))) as acceptor:
            here, _ = await joined(AddressLine(UnixAddress(path)), acceptor)
            here.transport.abort()

    async def test_a_socket_in_use_is_not_replaced(self, directory):
        address = UnixAddress(str(directory / "a.sock"))
        listener = await transport.listen(address, End)
        assert "in use" in await not_listened(address)
        listener.close()

    async def test_a_file_that_is_no_socket_is_not_replaced(self, directory):
        path = directory / "file"
        path.write_text("precious")
        assert "in use" in await not_listened(UnixAddress(str(path)))
        assert path.read_text() == "precious"

    async def test_an_abstract_name_in_use_is_refused(self, directory):
        address = UnixAddress(f"@kata-py-{directory.name}")
        listener = await transport.listen(address, End)
        assert "in use" in await not_listened(address)
        listener.close()

    @pytest.mark.parametrize("ask", [refused, not_listened])
    async def test_a_path_too_long_is_told_with_both_lengths(self, ask):
        message = await ask(UnixAddress("/tmp/" + "x" * 200))
        assert "107" in message
        assert "205" in message

    async def test_a_missing_socket_is_refused_at_once(self, directory):
        assert "No such file" in await refused(UnixAddress(str(directory / "none.sock")))

    async def test_a_socket_that_appears_is_waited_for_when_asked(self, directory):
        address = UnixAddress(str(directory / "late.sock"))

        async def listen_late():
            await asyncio.sleep(0.05)  # a peer that is still starting
            return await echoing(address)

        starting = asyncio.create_task(listen_late())
        async with connect(address, timeout=PATIENCE, retry=0.01) as client:
            assert await client.call("s", "Echo", b"x") == b"x"
        server = await starting
        server.close()
        await server.wait_closed(PATIENCE)

    async def test_waiting_ends_and_says_what_the_last_attempt_met(self, directory):
        message = await refused(UnixAddress(str(directory / "none.sock")), timeout=0.05, retry=0.01)
        assert "within 0.05 s" in message
        assert "No such file" in message


class TestVsock:
    async def test_a_machine_that_is_not_there_is_an_error_with_its_address(self):
        await refused(VsockAddress(0xFFFF_FFF0, 1024))

    async def test_a_port_in_use_is_an_error_with_its_address(self):
        address = VsockAddress(-1, 50_007)
        try:
            listener = await transport.listen(address, End)
        except ListenError:  # a kernel without vsock
            assert "not supported" in await not_listened(address)
        else:
            assert "in use" in await not_listened(address)
            listener.close()


class TestHybridVsock:
    async def test_a_port_that_nobody_listens_at_is_refused(self, vmm):
        assert "nobody listens at port 1024" in await refused(HybridVsockAddress(vmm.socket, GUEST_PORT))

    async def test_a_guest_that_is_still_booting_is_waited_for(self, vmm):
        async def boot():
            await asyncio.sleep(0.05)
            return await echoing(UnixAddress(vmm.guest_socket(GUEST_PORT)))

        booting = asyncio.create_task(boot())
        async with connect(HybridVsockAddress(vmm.socket, GUEST_PORT), timeout=PATIENCE, retry=0.01) as client:
            assert await client.call("s", "Echo", b"x") == b"x"
        server = await booting
        server.close()
        await server.wait_closed(PATIENCE)

    @pytest.mark.parametrize("greeting", [b"ERR no\n", b"x" * 1000])
    async def test_what_is_no_hybrid_vsock_is_told_by_its_answer(self, vmm, greeting):
        vmm.greeting = greeting
        listener = await transport.listen(UnixAddress(vmm.guest_socket(GUEST_PORT)), End)
        message = await refused(HybridVsockAddress(vmm.socket, GUEST_PORT))
        assert "instead of OK" in message
        assert greeting.decode()[:6] in message
        listener.close()

    async def test_a_vmm_that_never_answers_ends_with_the_timeout(self, vmm):
        vmm.greeting = b""
        listener = await transport.listen(UnixAddress(vmm.guest_socket(GUEST_PORT)), End)
        assert "within 0.05 s" in await refused(HybridVsockAddress(vmm.socket, GUEST_PORT), timeout=0.05)
        listener.close()

    async def test_what_follows_the_greeting_at_once_is_the_guests(self, vmm):
        vmm.greeting += b"first words"
        listener = await transport.listen(UnixAddress(vmm.guest_socket(GUEST_PORT)), End)
        here = End()
        await transport.connect(HybridVsockAddress(vmm.socket, GUEST_PORT), lambda: here, PATIENCE)
        await here.until(lambda: here.received == b"first words")
        here.transport.abort()
        listener.close()

    async def test_the_guest_dials_the_host_at_a_socket_of_its_own(self, vmm):
        line = AddressLine(HybridVsockAddress(vmm.socket, 10240), UnixAddress(f"{vmm.socket}_10240"))
        async with accepting(line) as acceptor:
            here, _ = await joined(line, acceptor)
            here.transport.abort()


class CountingPort(SerialPort):
    """Counts how often the loop is woken for it."""

    wakes = 0

    def _changed(self):
        self.wakes += 1
        super()._changed()


class TestSerial:
    async def test_a_line_that_stays_hung_up_wakes_nobody(self):
        line, acceptor = SerialLine(), Acceptor()
        port = CountingPort(line.master, acceptor)
        here, there = await joined(line, acceptor)
        here.transport.abort()
        await there.ended()
        await asyncio.sleep(0)
        assert not port.is_open
        before = port.wakes
        await asyncio.sleep(0.1)  # nothing is to happen, and that takes time to see
        assert port.wakes - before <= 1
        port.close()

    async def test_bytes_that_come_before_the_word_that_the_line_is_open_are_the_connections_first(self):
        line, acceptor = SerialLine(), Acceptor()
        host = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
        os.write(host, b"early")
        os.close(host)
        port = SerialPort(line.master, acceptor)
        assert port.hung_up
        there = await acceptor.next()
        await there.until(lambda: there.received == b"early")
        host = os.open(line.path, os.O_RDWR | os.O_NOCTTY)  # the word comes
        os.write(host, b" and late")
        await there.until(lambda: there.received == b"early and late")
        there.transport.write(b"answer")
        assert await asyncio.to_thread(os.read, host, 100) == b"answer"
        os.close(host)
        assert await there.ended() is None
        port.close()

    async def test_bytes_that_no_opening_follows_are_a_connection_that_ends(self, monkeypatch):
        monkeypatch.setattr(serial, "_OPENING_TIMEOUT", 0.01)
        line, acceptor = SerialLine(), Acceptor()
        host = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
        os.write(host, b"hit and run")
        os.close(host)
        port = SerialPort(line.master, acceptor)
        there = await acceptor.next()
        assert await there.ended() is None
        assert there.received == b"hit and run"
        port.close()

    async def test_a_server_serves_one_host_after_another_and_forgets_half_a_frame(self):
        line = SerialLine()
        seen = []

        async def echo(payload, context):
            seen.append(payload)
            return payload

        server = Server()
        server.add_raw("s", "Echo", echo)
        port = SerialPort(line.master, server.accept)
        for number in range(3):
            host = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
            os.write(host, b"\x00\x00\x10\x00\x00\x00")  # the beginning of a frame that never ends
            await noticed(lambda: port.is_open)
            os.close(host)
            await noticed(lambda: not port.is_open)
            async with connect(SerialAddress(line.path), timeout=PATIENCE, retry=0.01) as client:
                payload = b"%d" % number * 100_000
                assert await client.call("s", "Echo", payload, timeout=PATIENCE) == payload
        assert len(seen) == 3
        port.close()
        server.close()
        await server.wait_closed(PATIENCE)

    async def test_answers_to_an_earlier_host_are_not_taken_for_ones_own(self):
        line = SerialLine()
        acceptor = Acceptor()
        port = SerialPort(line.master, acceptor)
        ids = []
        for _ in range(2):
            async with connect(SerialAddress(line.path), timeout=PATIENCE, retry=0.01) as client:
                call = asyncio.create_task(client.call("s", "m", b""))
                there = await acceptor.next()
                await there.until(lambda: len(there.received) > 10)  # noqa: B023 awaited here
                ids.append(int.from_bytes(there.received[4:8]))
            with pytest.raises(ConnectionClosed):
                await call
            await there.ended()
            await asyncio.sleep(0.002)  # the numbers are the clock's, in milliseconds
        port.close()
        assert ids[0] < ids[1], "a later host's numbers are higher"
        assert all(number % 2 for number in ids)

    async def test_a_line_closed_on_the_other_side_is_not_kept_open_for_a_client(self):
        line = SerialLine()
        port = SerialPort(line.master, End, once=True)
        assert not port.is_open
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(line.master)

    async def test_the_host_side_is_the_vmms_unix_socket(self, directory):
        address = UnixAddress(str(directory / "chardev.sock"))
        async with accepting(AddressLine(address, SerialAddress(address.path))) as acceptor:
            here, _ = await joined(AddressLine(address, SerialAddress(address.path)), acceptor)
            here.transport.abort()

    async def test_a_device_that_goes_away_ends_the_connection_and_the_port(self, caplog):
        line, acceptor = SerialLine(), Acceptor()
        port = UnpluggedPort(line.master, acceptor)
        here, there = await joined(line, acceptor)
        port.unplugged = True
        here.transport.write(b"x")
        assert "No such device" in str(await there.ended())
        here.transport.abort()
        there.transport.write(b"into nothing")
        port.close()

    @pytest.mark.parametrize("name", ["none", "file"])
    async def test_what_is_no_device_is_an_error(self, directory, name):
        (directory / "file").write_text("")
        address = SerialAddress(str(directory / name))
        assert ("No such file" if name == "none" else "not a character device") in await not_listened(address)
        await refused(address)

    def test_a_virtio_port_is_found_by_its_name(self, directory):
        for port, name in (("vport0p1", "org.qemu.guest_agent.0\n"), ("vport2p3", "agent.channel.0\n")):
            (directory / port).mkdir()
            (directory / port / "name").write_text(name)
        address = SerialAddress("", "agent.channel.0")
        assert serial.device_path(address, str(directory)) == "/dev/vport2p3"
        with pytest.raises(OSError, match=r"found: agent\.channel\.0, org\.qemu\.guest_agent\.0"):
            serial.device_path(SerialAddress("", "other"), str(directory))

    async def test_a_machine_without_virtio_ports_says_so(self):
        assert "found: none" in await not_listened(SerialAddress("", "no.such.port"))


class UnpluggedPort(SerialPort):
    """A device that is gone when told so: the kernel then says ENODEV."""

    unplugged = False

    def read(self, space):
        if self.unplugged:
            raise OSError(19, "No such device")
        return super().read(space)


async def noticed(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 a port tells nobody
            await asyncio.sleep(0.001)
