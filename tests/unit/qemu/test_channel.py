from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kata_py.hypervisor.api import AgentChannel, HypervisorError, Ports
from kata_py.ttrpc.address import HybridVsockAddress, SerialAddress, VsockAddress
from kata_qemu import channel, hybrid
from kata_qemu.bus import PciPlace
from kata_qemu.channel import Channel, claim_cid, open_channel
from kata_qemu.devices.serial import AgentPort
from kata_qemu.devices.vsock import HybridVsock, Vsock
from kata_qemu.lines import Tail
from kata_qemu.parts import Frontend, SocketChardev
from kata_qemu.sockets import connected
from tests.drivers.journal import ListJournal

PLACE = PciPlace(2)
VHOST_DEVICE_VSOCK = """\
#!{python}
import socket, sys
arguments = dict(argument.split("=") for argument in sys.argv[1:])
assert arguments["--guest-cid"] == "3", arguments
ports = socket.socket(socket.AF_UNIX)
ports.bind(arguments["--uds-path"])
control = socket.socket(socket.AF_UNIX)
control.bind(arguments["--socket"])
control.listen()
connection, _ = control.accept()
connection.recv(1)
"""
SILENT_VHOST_DEVICE_VSOCK = """\
#!/usr/bin/python3 -S
import socket, sys, time
control = socket.socket(socket.AF_UNIX)
control.bind(dict(argument.split("=") for argument in sys.argv[1:])["--socket"])
time.sleep(60)
"""


@dataclass
class Host:
    """A host whose kernel has vsock, or has not; and what the channel opened."""

    directory: Path
    vhost_vsock: Path = Path("/no/such/device")
    journal: ListJournal = field(default_factory=ListJournal)
    life: AsyncExitStack = field(default_factory=AsyncExitStack)
    handover: ExitStack = field(default_factory=ExitStack)

    async def open(self, wanted: AgentChannel, *, log: bool = False, debug_console: bool = False) -> Channel:
        return await open_channel(
            wanted, self.directory, PLACE, self.journal, Tail(),
            life=self.life, handover=self.handover, log=log, debug_console=debug_console, vhost_vsock=self.vhost_vsock,
        )  # fmt: skip


@pytest.fixture
async def host(short_tmp: Path, request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    directory = short_tmp / str(abs(hash(request.node.name)))
    directory.mkdir()
    host = Host(directory)
    yield host
    host.handover.close()
    await host.life.aclose()


@pytest.mark.parametrize("wanted", [AgentChannel.AUTO, AgentChannel.VIRTIO_SERIAL])
async def test_a_host_without_vsock_has_a_serial_port_that_listens_already(host: Host, wanted: AgentChannel) -> None:
    opened = await host.open(wanted)
    assert opened.address == SerialAddress(str(host.directory / "agent.sock"))
    assert opened.guest_address == "virtio-serial://agent.channel.0"
    assert opened.device == AgentPort("agent.channel.0", opened.descriptors[0], PLACE)
    with connected(host.directory / "agent.sock"):
        pass
    assert opened.program is None


async def test_log_and_shell_have_serial_ports_of_their_own_where_there_is_no_vsock(host: Host) -> None:
    opened = await host.open(AgentChannel.VIRTIO_SERIAL, log=True, debug_console=True)
    log, console = SerialAddress(str(host.directory / "agent-log.sock")), host.directory / "debug-console.sock"
    assert opened.ports == Ports(log, SerialAddress(str(console)))
    agent, *others = opened.descriptors
    named = tuple(zip(("agent.log.0", "agent.debug_console.0"), others, strict=True))
    assert opened.device == AgentPort("agent.channel.0", agent, PLACE, named)
    with connected(console):
        pass


@pytest.mark.parametrize(
    ("log", "debug_console", "ports"),
    [
        (False, False, Ports()),
        (True, False, Ports(log=VsockAddress(77, 1025))),
        (False, True, Ports(debug_console=VsockAddress(77, 1026))),
    ],
)
async def test_over_vsock_log_and_shell_are_ports_by_number(
    host: Host, log: bool, debug_console: bool, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "claim_cid", lambda vhost: 77)
    host.vhost_vsock = Path("/dev/null")
    assert (await host.open(AgentChannel.VSOCK, log=log, debug_console=debug_console)).ports == ports


async def test_vsock_asked_for_and_not_to_be_had_is_an_error_with_a_way_out(host: Host) -> None:
    with pytest.raises(HypervisorError, match=r"vsock, but /no/such/device cannot be opened: .*vhost_vsock, or set"):
        await host.open(AgentChannel.VSOCK)


@pytest.mark.parametrize("wanted", [AgentChannel.AUTO, AgentChannel.VSOCK])
async def test_a_host_with_vsock_has_a_context_id_claimed(
    host: Host, wanted: AgentChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "claim_cid", lambda vhost: 77)
    host.vhost_vsock = Path("/dev/null")
    opened = await host.open(wanted)
    (vhost,) = opened.descriptors
    assert opened.address == VsockAddress(77, 1024)
    assert opened.guest_address == "vsock://-1:1024"
    assert opened.device == Vsock(vhost, 77, PLACE)
    assert opened.device.parts() == (
        Frontend("vhost-vsock-pci", "vsock", {"bus": "pcie.0", "addr": "0x2", "vhostfd": vhost, "guest-cid": 77}),
    )
    os.fstat(vhost)
    host.handover.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(vhost)


def test_a_context_id_that_is_taken_is_followed_by_another() -> None:
    tried: list[int] = []

    def ioctl(descriptor: int, request: int, argument: bytes) -> None:
        assert (descriptor, request) == (9, 0x4008AF60)
        tried.extend(struct.unpack("Q", argument))
        if len(tried) < 4:
            raise OSError(errno.EADDRINUSE, "taken")

    assert claim_cid(9, ioctl) == tried[-1]
    assert len(set(tried)) == 4
    assert all(3 <= cid < 2**32 - 1 for cid in tried)


def test_a_kernel_that_gives_no_context_id_is_an_error() -> None:
    def taken(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "taken")

    with pytest.raises(HypervisorError, match="64 random vsock context ids were all taken"):
        claim_cid(9, taken)
    with open("/dev/null") as null, pytest.raises(HypervisorError, match="cannot claim a vsock context id"):  # noqa: PTH123
        claim_cid(null.fileno())


async def test_a_hybrid_channel_runs_the_device_and_connects_qemu_to_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vhost-device-vsock"
    program.write_text(VHOST_DEVICE_VSOCK.format(python="/usr/bin/python3 -S"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    opened = await host.open(AgentChannel.HYBRID_VSOCK, log=True)
    assert opened.ports == Ports(log=HybridVsockAddress(str(host.directory / "kata.hvsock"), 1025))
    (descriptor,) = opened.descriptors
    assert opened.address == HybridVsockAddress(str(host.directory / "kata.hvsock"), 1024)
    assert opened.guest_address == "vsock://-1:1024"
    assert opened.device == HybridVsock(descriptor, PLACE)
    assert opened.device.parts()[0] == SocketChardev("vsock-socket", descriptor)
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        assert connection.getpeername() == str(host.directory / "vhost-vsock.sock")
    assert opened.program is not None
    assert opened.program.alive
    host.handover.close()  # QEMU would hold its own copy of the connection
    assert await opened.program.wait() == "vhost-device-vsock exited with status 0"


async def test_a_hybrid_device_that_dies_at_once_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vhost-device-vsock"
    program.write_text("#!/bin/sh\nexit 4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HypervisorError, match="vhost-device-vsock exited with status 4"):
        await host.open(AgentChannel.HYBRID_VSOCK)
    assert host.journal.entries == []


async def test_a_hybrid_device_that_never_listens_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vhost-device-vsock"
    program.write_text(SILENT_VHOST_DEVICE_VSOCK)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(hybrid, "START_TIMEOUT", 1.0)
    with pytest.raises(HypervisorError, match=r"vhost-device-vsock did not listen at .*/vhost-vsock.sock within 1 s"):
        await host.open(AgentChannel.HYBRID_VSOCK)


async def test_a_host_without_the_hybrid_device_is_told_what_to_do(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/place")
    with pytest.raises(HypervisorError, match=r"there is no vhost-device-vsock on the path \(install"):
        await host.open(AgentChannel.HYBRID_VSOCK)
