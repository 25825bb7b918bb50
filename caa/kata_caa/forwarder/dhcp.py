"""The VM's own address, by DHCP: busybox's client, unless somebody runs it already.

Source: busybox `networking/udhcp/dhcpc.c`; netdevice(7); Linux `Documentation/ABI/testing/sysfs-class-net`.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kata_caa.errors import ForwarderError

logger = logging.getLogger(__name__)

BUSYBOX: Final = "/usr/bin/busybox"
TIMEOUT: Final = 120.0
"""Seconds for an interface to appear and to have an address. Clouds answer at once, mostly."""

_RETRY: Final = 0.1  # seconds between two looks at what the kernel has no event for
_SCRIPT_PATH: Final = Path("/run/kata-forwarder/udhcpc")
_RESOLV_CONF: Final = "/run/resolv.conf"  # where the image's link in /etc leads to

# What the client runs at each change. A router outside the prefix, as Google has it, needs a route of its own.
_SCRIPT: Final = """\
#!{busybox} sh
ip() {{ {busybox} ip "$@"; }}
case $1 in
deconfig)
    ip -4 addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip -4 addr show dev "$interface" | {busybox} grep -q "inet $ip/$mask " || {{
        ip -4 addr flush dev "$interface"
        ip -4 addr add "$ip/$mask" ${{broadcast:+broadcast $broadcast}} dev "$interface"
    }}
    for gateway in $router; do
        [ "$mask" != 32 ] || ip -4 route replace "$gateway" dev "$interface"
        ip -4 route replace default via "$gateway" dev "$interface"
        break
    done
    {{
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do echo "nameserver $server"; done
    }} >{resolv_conf}.new
    {busybox} mv {resolv_conf}.new {resolv_conf}
    ;;
esac
"""


def bring_up(
    timeout: float = TIMEOUT,
    *,
    busybox: str = BUSYBOX,
    script: Path = _SCRIPT_PATH,
    resolv_conf: str = _RESOLV_CONF,
    meanwhile: Callable[[], None] = lambda: None,
) -> str:
    """Get an address for the first physical interface; returns the interface that has one.

    The client stays and renews the lease. One that runs already is left its work, so this may be called again.

    Args:
        timeout: Seconds.
        busybox: The program.
        script: Where the client's script is put.
        resolv_conf: Where the client writes the name servers.
        meanwhile: Called while the server is waited for.

    Raises:
        ForwarderError: There is no interface, or no answer, within that time.
    """
    deadline = time.monotonic() + timeout
    name = _wait(first_interface, deadline, f"waited {timeout:g} s for a network interface")
    client = None
    if with_address() is None and not client_runs():
        client = _start_client(name, busybox, script, resolv_conf)
    meanwhile()
    if client is not None:
        _wait_for_lease(client, name, deadline, timeout)
    return _wait(with_address, deadline, f"waited {timeout:g} s for an address by DHCP on {name}")


def first_interface(sys: Path = Path("/sys")) -> str | None:
    """The first interface with a device behind it, in the kernel's order; None if there is none (yet)."""
    physical = [each for each in (sys / "class/net").iterdir() if (each / "device").exists()]
    if not physical:
        return None
    return min(physical, key=lambda each: int((each / "ifindex").read_text())).name


def with_address(table: Path = Path("/proc/net/route")) -> str | None:
    """The interface of the IPv4 default route: a lease brings both. None if there is none (yet)."""
    for line in table.read_text().splitlines()[1:]:
        name, destination, _, flags, _, _, _, mask = line.split()[:8]
        if destination == mask == "00000000" and int(flags, 16) & 1:
            return name
    return None


def client_runs(proc: Path = Path("/proc")) -> bool:
    """Whether a DHCP client of busybox's runs."""
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if any(word.rpartition(b"/")[2] == b"udhcpc" for word in words[:2]):
            return True
    return False


def _start_client(name: str, busybox: str, script: Path, resolv_conf: str) -> subprocess.Popen[bytes]:
    script.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    script.write_text(_SCRIPT.format(busybox=busybox, resolv_conf=resolv_conf), encoding="ascii")
    script.chmod(0o755)
    told = ("-i", name, "-s", str(script), "-p", f"{script}.pid", "-O", "mtu", "-t", "5", "-T", "1", "-A", "2")
    nothing = subprocess.DEVNULL
    try:
        return subprocess.Popen([busybox, "udhcpc", *told], stdin=nothing, stdout=nothing, stderr=nothing)
    except OSError as error:
        raise ForwarderError(f"{busybox} udhcpc cannot be run: {error.strerror}") from error


def _wait_for_lease(client: subprocess.Popen[bytes], name: str, deadline: float, timeout: float) -> None:
    """Wait until the client has a lease: then it goes to the background by itself."""
    try:
        client.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()
        raise ForwarderError(f"waited {timeout:g} s for a DHCP lease on {name}: no server has answered") from None
    if client.returncode:
        raise ForwarderError(f"busybox udhcpc on {name} has failed with exit status {client.returncode}")


def _wait(look: Callable[[], str | None], deadline: float, otherwise: str) -> str:
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise ForwarderError(otherwise)
        time.sleep(_RETRY)
    return found
