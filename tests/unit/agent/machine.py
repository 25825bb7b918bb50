"""A guest's sysfs and /dev as directories, and its kernel's news as datagrams that a test sends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

from kata_agent.device.finder import Finder
from kata_agent.errors import AgentError
from kata_agent.uevents import Uevents


class Machine:
    """Devices are plugged in by its methods.

    Attributes:
        root: What stands for `/`.
        modules: Kernel modules that were asked for.
        listening: How many sockets have been opened for news.
        opened: Set at each of them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: list[str] = []
        self.listening = 0
        self.opened = asyncio.Event()
        self._kernel: socket.socket | None = None
        for directory in ("dev", "sys/bus/pci/devices", "sys/class/block"):
            (root / directory).mkdir(parents=True)

    def finder(self, timeout: float = 5.0) -> Finder:
        return Finder(self._load, timeout=timeout, root=self.root, uevents=Uevents(self.open))

    async def _load(self, name: str, parameters: Sequence[str]) -> None:
        self.modules.append(name)
        if name == "missing":
            raise AgentError(name)

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()

    def open(self) -> socket.socket:
        self.close()
        ours, self._kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.listening += 1
        self.opened.set()
        return ours

    def tell(self, action: str, devpath: str, **fields: str) -> None:
        """Send a uevent as the kernel does."""
        assert self._kernel is not None
        lines = {"ACTION": action, "DEVPATH": devpath, **fields, "SEQNUM": "1"}
        text = f"{action}@{devpath}\0" + "".join(f"{key}={value}\0" for key, value in lines.items())
        self._kernel.send(text.encode())

    def bridge(self, address: str, bus: str, parent: str = "pci0000:00") -> None:
        """A root port, or a bridge below another."""
        self.pci(address, parent)
        (self.root / "sys/bus/pci/devices" / address / "pci_bus" / bus).mkdir(parents=True)

    def pci(self, address: str, parent: str = "pci0000:00") -> Path:
        place = self.root / "sys/devices" / parent / address
        place.mkdir(parents=True)
        (self.root / "sys/bus/pci/devices" / address).symlink_to(place)
        return place

    def disk(self, device: str, name: str) -> None:
        """A disk that a device, given by its path below /sys, is the controller of; without a node."""
        place = self.root / "sys" / device / "block" / name
        place.mkdir(parents=True)
        (self.root / "sys/class/block" / name).symlink_to(place)

    def node(self, name: str) -> None:
        (self.root / "dev" / name).parent.mkdir(exist_ok=True)
        (self.root / "dev" / name).touch()
