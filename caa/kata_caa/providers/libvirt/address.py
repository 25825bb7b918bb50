"""A machine's addresses: waited for, since a machine asks for them when it has booted.

libvirt has events of a machine's life, which the state in the loop stands for, but none of a lease: so this is
asked for, twice a second, which is little beside a boot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import binding, volume
from kata_caa.providers.libvirt.binding import Connect, Domain, Interface
from kata_caa.providers.libvirt.connection import Connection
from kata_caa.providers.libvirt.domain import Machine
from kata_caa.providers.libvirt.fault import is_lost

PAUSE = 0.5  # seconds
_TAIL = 2048  # bytes of the console's end, of which
_TAIL_LINES = 5  # lines go into an error


async def wait(connection: Connection, machine: Machine, timeout: float) -> tuple[str, ...]:
    """The addresses of a machine's interfaces, one of each in their order.

    Asked are the network's leases, or the guest agent where libvirt gives no addresses there, and then the host's
    neighbours. A broken connection is borne as long as there is time.

    Raises:
        ProviderError: The machine has ended, or has no address in time; with the console's last lines.
    """
    what = f"ask for the address of machine {machine.name}"
    deadline = time.monotonic() + timeout
    trouble: ProviderError | None = None
    while True:
        try:
            running, found = await connection.call(what, lambda connect: _look(connect, machine))
            trouble = None
        except ProviderError as error:
            if error.fault is not Fault.TRANSIENT:
                raise
            running, found, trouble = True, (), error
        if len(found) == len(machine.macs):
            return found
        if not running or time.monotonic() >= deadline:
            break
        await asyncio.sleep(PAUSE)
    if trouble:
        raise trouble
    cause = f"machine {machine.name} got no address from network {machine.network} in {timeout:g} s"
    if not running:
        cause = f"machine {machine.name} ended before it had an address"
    hint = "the image must ask for an address by DHCP when it boots"
    raise ProviderError(Fault.TRANSIENT, cause + await _console(connection, machine), hint=hint)


def _look(connect: Connect, machine: Machine) -> tuple[bool, tuple[str, ...]]:
    domain = connect.lookupByUUIDString(machine.uuid)
    if domain.state(0)[0] not in binding.RUNNING:
        return False, ()
    found: dict[str, str] = {}
    for source in (binding.AGENT, binding.ARP) if machine.agent else (binding.LEASE, binding.ARP):
        found |= {mac: address for mac, address in _ask(domain, source, machine.macs).items() if mac not in found}
        if len(found) == len(machine.macs):
            break
    return True, tuple(found[mac] for mac in machine.macs if mac in found)


def _ask(domain: Domain, source: int, macs: Sequence[str]) -> Mapping[str, str]:
    try:
        interfaces = domain.interfaceAddresses(source, 0)
    except binding.Refused as error:
        # Leases are always there to be asked for. The others have many words for not knowing yet: that no agent runs,
        # or that the kernel's list of neighbours was cut off.
        if source == binding.LEASE or is_lost(error):
            raise
        return {}
    return {
        interface["hwaddr"].lower(): address
        for interface in interfaces.values()
        if interface["hwaddr"] and interface["hwaddr"].lower() in macs and (address := _best(interface))
    }


def _best(interface: Interface) -> str:
    """An address to be reached by: of version 4 rather than 6, never a link's own."""
    addresses = [ip_address(entry["addr"]) for entry in interface["addrs"] or ()]
    usable = sorted((each for each in addresses if not each.is_link_local), key=lambda each: each.version)
    return str(usable[0]) if usable else ""


async def _console(connection: Connection, machine: Machine) -> str:
    """The console's last lines, for an error."""
    if not machine.console_log:
        return ""
    try:
        said = await connection.call(
            "read the console", lambda connect: volume.tail(connect, machine.console_log, _TAIL)
        )
    except ProviderError:
        return ""
    lines = [line for line in said.decode(errors="replace").replace("\r", "\n").split("\n") if line.strip()]
    return "; its console's last lines: " + " | ".join(lines[-_TAIL_LINES:]) if lines else "; its console is silent"
