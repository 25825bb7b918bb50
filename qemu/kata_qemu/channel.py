"""The agent's channel: which one, its device, and its address on both sides; and the agent's other ports.

Source: kata `virtcontainers/utils/utils_linux.go` (claiming a context id), `pkg/agent/protocols/client`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from kata_py.hypervisor.api import AgentChannel, HypervisorError, Ports
from kata_py.resource.journal import Journal
from kata_py.ttrpc.address import Address, HybridVsockAddress, SerialAddress, VsockAddress
from kata_qemu import hybrid
from kata_qemu.bus import Place
from kata_qemu.devices import Device
from kata_qemu.devices.serial import AgentPort
from kata_qemu.devices.vsock import HybridVsock, Vsock
from kata_qemu.lines import Tail
from kata_qemu.process import Program
from kata_qemu.sockets import listening

AGENT_PORT = 1024
LOG_PORT = 1025
DEBUG_CONSOLE_PORT = 1026
PORT_NAME = "agent.channel.0"
LOG_PORT_NAME = "agent.log.0"
DEBUG_CONSOLE_PORT_NAME = "agent.debug_console.0"
VHOST_VSOCK = Path("/dev/vhost-vsock")

_SET_GUEST_CID = 0x4008AF60  # VHOST_VSOCK_SET_GUEST_CID, include/uapi/linux/vhost.h
_FIRST_CID = 3  # below are the hypervisor, the local loop and the host
_LAST_CID = 0xFFFFFFFE
_CLAIM_MAX = 64  # tries: two of them already mean that billions of machines run

_GUEST_VSOCK = str(VsockAddress(-1, AGENT_PORT))

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is ready for its machine.

    Attributes:
        address: Where the host finds the agent.
        guest_address: Where the agent is to listen.
        device: What the machine gets.
        descriptors: What QEMU inherits for it.
        program: Without it the channel, and so the machine, is lost.
        ports: Where the host finds what else the agent offers.
    """

    address: Address
    guest_address: str
    device: Device
    descriptors: tuple[int, ...]
    program: Program | None = None
    ports: Ports = field(default_factory=Ports)


async def open_channel(
    wanted: AgentChannel,
    directory: Path,
    place: Place,
    journal: Journal,
    tail: Tail,
    *,
    life: AsyncExitStack,
    handover: ExitStack,
    log: bool = False,
    debug_console: bool = False,
    vhost_vsock: Path = VHOST_VSOCK,
) -> Channel:
    """Make the channel; AUTO takes vsock where the host's kernel has it, else virtio-serial.

    Args:
        wanted: Which.
        directory: Where its sockets go.
        place: Where its device sits.
        journal: Where its process is written down.
        tail: Where its process's last lines are kept.
        life: What must last as long as the machine.
        handover: What is closed once QEMU has inherited it.
        log: Whether the agent's log has a port.
        debug_console: Whether the debug console has one.
        vhost_vsock: The host's device.

    Raises:
        HypervisorError: The host does not have what is wanted.
    """
    if wanted in (AgentChannel.AUTO, AgentChannel.VSOCK):
        try:
            vhost = os.open(vhost_vsock, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if wanted is AgentChannel.VSOCK:
                raise HypervisorError(
                    "qemu",
                    f"agent_channel is vsock, but {vhost_vsock} cannot be opened: {error.strerror}",
                    hint='load the module vhost_vsock, or set agent_channel to "auto"',
                ) from error
            logger.debug("agent channel: virtio-serial, as %s cannot be opened: %s", vhost_vsock, error.strerror)
        else:
            handover.callback(os.close, vhost)
            cid = claim_cid(vhost)
            ports = Ports(
                VsockAddress(cid, LOG_PORT) if log else None,
                VsockAddress(cid, DEBUG_CONSOLE_PORT) if debug_console else None,
            )
            address = VsockAddress(cid, AGENT_PORT)
            return Channel(address, _GUEST_VSOCK, Vsock(vhost, cid, place), (vhost,), ports=ports)
    if wanted is AgentChannel.HYBRID_VSOCK:
        program, uds, sock = await life.enter_async_context(hybrid.serving(directory, journal, tail))
        handover.callback(sock.close)
        ports = Ports(
            HybridVsockAddress(str(uds), LOG_PORT) if log else None,
            HybridVsockAddress(str(uds), DEBUG_CONSOLE_PORT) if debug_console else None,
        )
        address_there = HybridVsockAddress(str(uds), AGENT_PORT)
        device = HybridVsock(sock.fileno(), place)
        return Channel(address_there, _GUEST_VSOCK, device, (sock.fileno(),), program, ports)
    return _serial(directory, place, handover, log=log, debug_console=debug_console)


def _serial(directory: Path, place: Place, handover: ExitStack, *, log: bool, debug_console: bool) -> Channel:
    """A port by name for each: there is no vsock, whose numbers would tell them apart."""

    def port(name: str, file: str) -> tuple[tuple[str, int], SerialAddress]:
        path = directory / file
        return (name, handover.enter_context(listening(path)).fileno()), SerialAddress(str(path))

    (name, descriptor), address = port(PORT_NAME, "agent.sock")
    ports, others = Ports(), []
    if log:
        other, where = port(LOG_PORT_NAME, "agent-log.sock")
        others.append(other)
        ports = replace(ports, log=where)
    if debug_console:
        other, where = port(DEBUG_CONSOLE_PORT_NAME, "debug-console.sock")
        others.append(other)
        ports = replace(ports, debug_console=where)
    return Channel(
        address,
        str(SerialAddress("", PORT_NAME)),
        AgentPort(name, descriptor, place, tuple(others)),
        (descriptor, *(other for _, other in others)),
        ports=ports,
    )


def claim_cid(vhost: int, ioctl: Callable[[int, int, bytes], object] = fcntl.ioctl) -> int:
    """Claim a context id, at random, for as long as the descriptor of /dev/vhost-vsock is open anywhere.

    Raises:
        HypervisorError: The kernel gives none.
    """
    for _ in range(_CLAIM_MAX):
        cid = random.SystemRandom().randint(_FIRST_CID, _LAST_CID)
        try:
            ioctl(vhost, _SET_GUEST_CID, struct.pack("Q", cid))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise HypervisorError("qemu", f"cannot claim a vsock context id: {error.strerror}") from error
        else:
            return cid
    raise HypervisorError("qemu", f"{_CLAIM_MAX} random vsock context ids were all taken")
