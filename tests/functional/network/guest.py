"""A guest that speaks raw frames at its end of a tap device."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from kata_py.network.nic import Nic

ARP, IPV4 = b"\x08\x06", b"\x08\x00"
_HEADER = bytes(10)  # virtio-net's, of a frame that is whole as it stands
_TIMEOUT = 5.0  # seconds


class Guest:
    """The interface, and the address that the guest has on it."""

    def __init__(self, nic: Nic, ip: str) -> None:
        self._fds = nic.tap_fds
        self._mac = bytes.fromhex(nic.mac.replace(":", ""))
        self._ip = socket.inet_aton(ip)

    def arp_request(self, ip: str) -> bytes:
        """Who has that address?"""
        ethernet = b"\xff" * 6 + self._mac + ARP
        return (
            ethernet + bytes.fromhex("0001080006040001") + self._mac + self._ip + bytes(6) + socket.inet_aton(ip)
        ).ljust(60, b"\0")

    async def send(self, frame: bytes) -> None:
        """Send a frame by the first queue."""
        os.write(self._fds[0], _HEADER + frame)

    async def received(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Wait for a frame that is wanted, on whichever queue."""
        loop = asyncio.get_running_loop()
        frame: asyncio.Future[bytes] = loop.create_future()

        def read(fd: int) -> None:
            data = os.read(fd, 1 << 16)[len(_HEADER) :]
            if wanted(data) and not frame.done():
                frame.set_result(data)

        for fd in self._fds:
            loop.add_reader(fd, read, fd)
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await frame
        finally:
            for fd in self._fds:
                loop.remove_reader(fd)
