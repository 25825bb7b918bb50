"""The network interface of a device that the host has plugged in: found in sysfs, or waited for.

The kernel announces each new interface to who listens for news about links. Source for the forms of a device's
path: kata-containers' `src/agent/src/{pci,ccw,device/mod}.rs`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from kata_agent.errors import AgentError
from kata_py.netlink.rtnetlink import RTMGRP_LINK

DEVICES = Path("/sys/devices")

_FIRST_ROOT = 0x20  # a bus with this number or above is that of another root complex; slots end before
_NEWS = 1 << 16  # bytes


async def wait_for_interface(path: str, timeout: float, devices: Path = DEVICES) -> str:
    """The name of a device's network interface, as soon as it is there.

    Args:
        path: Slots of the PCI bridges on the way and of the device, such as `02/00`, each with a function if that is
            not 0 (`02/00.1`); before them the bus of a root complex other than the first; or a CCW bus id, `0.0.0003`.
        timeout: Seconds to wait.
        devices: Where sysfs shows devices.

    Raises:
        AgentError: The path has neither form; there is no interface in time.
        OSError: The kernel tells no news.
    """
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as news:
        news.bind((0, RTMGRP_LINK))  # before the first look, so that nothing comes between
        try:
            async with asyncio.timeout(timeout):
                while (name := find_interface(path, devices)) is None:
                    await _next(news)
        except TimeoutError:
            raise AgentError(f"no network interface at {path} within {timeout:g} s (agent.hotplug_timeout)") from None
    return name


def find_interface(path: str, devices: Path = DEVICES) -> str | None:
    """The name of a device's network interface, of several the first by name; None if there is none.

    Args:
        path: As for `wait_for_interface`.
        devices: Where sysfs shows devices.

    Raises:
        AgentError: The path has no form of a device's.
    """
    is_ccw = path.count(".") == 2 and "/" not in path
    directory = _ccw_directory(path, devices) if is_ccw else _pci_directory(path, devices)
    if directory is None:
        return None
    owners = (directory, *(each for each in _children(directory) if each.name.startswith("virtio")))
    return min((each.name for owner in owners for each in _children(owner / "net")), default=None)


def _ccw_directory(path: str, devices: Path) -> Path | None:
    try:
        css, subchannel_set, number = (int(word, 16) for word in path.split("."))
    except ValueError:
        css = subchannel_set = number = -1
    if css != 0 or not 0 <= subchannel_set <= 3 or not 0 <= number <= 0xFFFF:
        raise AgentError(f"Unexpected CCW path for network interface: {path!r}")
    found = (subchannel / f"0.{subchannel_set:x}.{number:04x}" for subchannel in _children(devices / "css0"))
    return next((directory for directory in found if directory.exists()), None)


def _pci_directory(path: str, devices: Path) -> Path | None:
    root, slots = _slots(path)
    directory, bus = devices / f"pci0000:{root:02x}", f"0000:{root:02x}"
    for number, slot in enumerate(slots):
        if number:
            buses = [each.name for each in _children(directory / "pci_bus")]
            if not buses:
                return None  # the bridge is not there yet
            bus = min(buses)
        directory = directory / f"{bus}:{slot}"
    return directory


def _slots(path: str) -> tuple[int, list[str]]:
    """The bus of the root complex, and `SS.F` of each device on the way."""
    words = path.split("/")
    root = 0
    try:
        if len(words) > 1 and int(words[0].partition(".")[0], 16) >= _FIRST_ROOT:
            root = int(words.pop(0), 16)
        devices = [word.partition(".") for word in words]
        numbers = [(int(slot, 16), int(function or "0", 16)) for slot, _, function in devices]
    except ValueError:
        numbers = [(-1, -1)]
    if root > 0xFF or any(not (0 <= slot < 32 and 0 <= function < 8) for slot, function in numbers):
        raise AgentError(f"Invalid PCI path for network interface: {path!r}")
    return root, [f"{slot:02x}.{function}" for slot, function in numbers]


def _children(directory: Path) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except FileNotFoundError:
        return


async def _next(news: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().sock_recv(news, _NEWS)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # more news than the socket holds: a look is due all the same
            raise
