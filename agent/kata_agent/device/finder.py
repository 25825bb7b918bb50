"""Finding the devices that the host has plugged in, by where it put them.

Each search waits for the device to appear, within the agent's bound. What it gives is ready for use: the kernel has
made its node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from kata_agent.device.address import ApQueue, PciPath, ScsiAddress, ccw_bus_id
from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.uevents import Uevents

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

LoadModule = Callable[[str, Sequence[str]], Awaitable[None]]

HOTPLUG_TIMEOUT = 3.0  # seconds; agent.hotplug_timeout

# Nobody in the guest loads a driver when its device appears; these are loaded by whoever looks for such a device.
_SCSI_MODULES = ("virtio_scsi", "sd_mod")
_PMEM_MODULES = ("nfit", "virtio_pmem", "nd_pmem")
_VFIO_MODULES = ("vfio_pci", "vfio_iommu_type1")


class Finder:
    """Searches sysfs.

    Args:
        load_module: Loads a kernel module by name, with parameters.
        timeout: Seconds that a device may take to appear.
        root: Of sysfs and devtmpfs: `sys` and `dev` are below it.
        uevents: News of devices.
    """

    def __init__(
        self,
        load_module: LoadModule,
        *,
        timeout: float = HOTPLUG_TIMEOUT,
        root: Path = Path("/"),
        uevents: Uevents | None = None,
    ) -> None:
        self._load_module = load_module
        self._timeout = timeout
        self._sys = root / "sys"
        self._dev = root / "dev"
        self._uevents = uevents or Uevents()

    async def virtio_block(self, pci_path: str) -> str:
        """The node, such as `/dev/vdb`, of the virtio-blk disk at a guest PCI path.

        Raises:
            InvalidArgument: It is no PCI path.
            AgentError: No disk appeared there in time.
        """
        path = PciPath.parse(pci_path)
        return await self._wait(
            lambda: self._node(self._below(self._pci(path), "virtio*/block/*")),
            f"the virtio-blk disk at PCI path {path}",
            "block",
        )

    async def ccw_block(self, bus_id: str) -> str:
        """The node of the virtio-blk disk that is a channel device (s390x); raises as `virtio_block`."""
        device = self._sys / "bus/ccw/devices" / ccw_bus_id(bus_id)
        return await self._wait(
            lambda: self._node(self._below(device, "virtio*/block/*")),
            f"the virtio-blk disk with CCW id {device.name}",
            "block",
        )

    async def scsi_disk(self, address: str) -> str:
        """The node, such as `/dev/sda`, of the SCSI disk `id:lun`, for which the hosts are scanned.

        Raises:
            InvalidArgument: It is no SCSI address.
            AgentError: No disk appeared there in time.
        """
        disk = ScsiAddress.parse(address)
        await self._ensure(_SCSI_MODULES)
        await asyncio.to_thread(self._scan_scsi, disk)
        devices = self._sys / "bus/scsi/devices"
        return await self._wait(
            lambda: self._node(devices.glob(f"[0-9]*:0:{disk}/block/*")), f"the SCSI disk {disk}", "block"
        )

    async def block(self, path: str) -> str:
        """The block device with that node, once it is there: for disks that the host knows by their name.

        Raises:
            InvalidArgument: It is no path of a device.
            AgentError: It did not appear in time.
        """
        name = self._name(path)
        return await self._wait(
            lambda: self._node((self._sys / "class/block" / name,)), f"the block device {path}", "block"
        )

    async def pmem(self, path: str) -> str:
        """The persistent memory with that node (`/dev/pmem0`); raises as `block`."""
        await self._ensure(_PMEM_MODULES)
        return await self.block(path)

    async def pci_device(self, pci_path: str) -> str:
        """The guest's address, such as `0000:01:00.0`, of the device at a guest PCI path; raises as `virtio_block`."""
        path = PciPath.parse(pci_path)

        def look() -> str | None:
            device = self._pci(path)
            return device.name if device is not None else None

        return await self._wait(look, f"the PCI device at path {path}", "pci")

    async def vfio_node(self, address: str) -> tuple[str, str]:
        """Give a PCI device to the guest's vfio-pci; the driver it had loses it.

        Args:
            address: The guest's address of it.

        Returns:
            Its IOMMU group and the group's node, `/dev/vfio/<group>`.

        Raises:
            AgentError: It has no IOMMU group, or the node did not appear in time.
        """
        await self._ensure(_VFIO_MODULES)
        try:
            number = await asyncio.to_thread(self._give_to_vfio, address)
        except OSError as error:
            raise AgentError(f"cannot give PCI device {address} to vfio-pci: {error}") from error
        node = self._dev / "vfio" / number
        await self._wait(lambda: node if node.exists() else None, f"/dev/vfio/{number} of PCI device {address}", "vfio")
        return number, f"/dev/vfio/{number}"

    async def ap_queue(self, queue: str) -> None:
        """Wait for a queue of a crypto adapter (s390x); raises as `virtio_block`."""
        wanted = ApQueue.parse(queue)
        place = self._sys / f"devices/ap/card{wanted.adapter:02x}" / str(wanted)
        await self._wait(lambda: place if place.exists() else None, f"the AP queue {wanted}", "ap")

    async def scan_ap(self) -> None:
        """Make the kernel look for crypto adapters (s390x).

        Raises:
            OSError: There is no such bus.
        """
        await asyncio.to_thread((self._sys / "bus/ap/scans").write_text, "1")

    def _scan_scsi(self, disk: ScsiAddress) -> None:
        for host in self._sys.glob("class/scsi_host/host*/scan"):
            host.write_text(f"0 {disk.target} {disk.lun}")

    def _give_to_vfio(self, address: str) -> str:
        """Change the driver; returns the IOMMU group's number."""
        bus = self._sys / "bus/pci"
        device = bus / "devices" / address
        (device / "driver_override").write_text("vfio-pci")
        driver = device / "driver"
        if not (driver.exists() and driver.resolve().name == "vfio-pci"):
            if driver.exists():
                (driver / "unbind").write_text(address)
            (bus / "drivers_probe").write_text(address)
        group = device / "iommu_group"
        if not group.exists():
            raise AgentError(f"{address} has no IOMMU group")
        return group.resolve().name

    async def _wait(self, look: Callable[[], _T | None], what: str, *subsystems: str) -> _T:
        return await self._uevents.wait(look, what, subsystems=subsystems, timeout=self._timeout)

    async def _ensure(self, modules: Iterable[str]) -> None:
        for module in modules:
            if (self._sys / "module" / module).exists():
                continue
            try:
                await self._load_module(module, ())
            except AgentError as error:
                _LOG.info("%s; it may be built into the kernel", error)

    def _pci(self, path: PciPath) -> Path | None:
        """The device's directory in sysfs, if it and all bridges before it are there."""
        bus = f"0000:{path.bus:02x}"
        for position, function in enumerate(path.functions):
            device = self._sys / "bus/pci/devices" / f"{bus}:{function}"
            if not device.exists():
                return None
            if position + 1 < len(path.functions):
                below = next((device / "pci_bus").glob("*"), None)
                if below is None:
                    return None
                bus = below.name
        return device

    @staticmethod
    def _below(device: Path | None, pattern: str) -> Iterable[Path]:
        return device.glob(pattern) if device is not None else ()

    def _node(self, found: Iterable[Path]) -> str | None:
        """The first whose node is there."""
        for each in found:
            if each.exists() and (self._dev / each.name).exists():
                return f"/dev/{each.name}"
        return None

    @staticmethod
    def _name(path: str) -> str:
        directory, _, name = path.rpartition("/")
        if directory != "/dev" or name in ("", ".", ".."):
            raise InvalidArgument(f"{path!r} is no device: expected /dev/<name>")
        return name
