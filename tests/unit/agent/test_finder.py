from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kata_agent.device.address import ApQueue, PciPath, ScsiAddress, ccw_bus_id, pci_address
from kata_agent.device.finder import Finder
from kata_agent.errors import AgentError, InvalidArgument
from tests.unit.agent.machine import Machine


@pytest.mark.parametrize(
    ("text", "path", "again"),
    [
        ("02", PciPath(0, ("02.0",)), "02.0"),
        ("2/0", PciPath(0, ("02.0", "00.0")), "02.0/00.0"),
        ("1f.7/0a.1/03", PciPath(0, ("1f.7", "0a.1", "03.0")), "1f.7/0a.1/03.0"),
        ("20/00/02", PciPath(0x20, ("00.0", "02.0")), "20/00.0/02.0"),
    ],
)
def test_a_pci_path_has_a_slot_for_each_bus(text: str, path: PciPath, again: str) -> None:
    assert PciPath.parse(text) == path
    assert str(path) == again


@pytest.mark.parametrize("text", ["", "/", "02/", "xyz", "20", "02/20", "00.8", "02:00", "002", "0/0/..", "20.1/00"])
def test_what_is_no_pci_path_is_told(text: str) -> None:
    with pytest.raises(InvalidArgument, match="PCI path"):
        PciPath.parse(text)


def test_other_addresses_are_read_and_written_in_full() -> None:
    assert pci_address("0000:5E:0a.7") == "0000:5e:0a.7"
    assert ccw_bus_id("0.1.3") == "0.1.0003"
    assert str(ScsiAddress.parse("0:12")) == "0:12"
    assert str(ApQueue.parse("a.31")) == "0a.0031"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (pci_address, "00:1f.0"), (pci_address, "0000:00:20.0"),
        (ccw_bus_id, "1.0.0003"), (ccw_bus_id, "0.4.0003"), (ccw_bus_id, "0.0.00003"),
        (ScsiAddress.parse, "0"), (ScsiAddress.parse, "0:0:0"), (ScsiAddress.parse, "a:0"),
        (ApQueue.parse, "0a"), (ApQueue.parse, "100.0001"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_told(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(InvalidArgument, match="should have the format"):
        read(text)


async def test_a_disk_behind_a_root_port_is_found_whatever_number_its_bus_got(machine: Machine) -> None:
    machine.bridge("0000:00:02.0", "0000:07")
    machine.pci("0000:07:00.0", "pci0000:00/0000:00:02.0")
    machine.disk("bus/pci/devices/0000:07:00.0/virtio3", "vdc")
    machine.node("vdc")

    assert await machine.finder().virtio_block("02/00") == "/dev/vdc"


async def test_a_disk_below_another_root_complex_is_found(machine: Machine) -> None:
    machine.bridge("0000:20:00.0", "0000:21", "pci0000:20")
    machine.pci("0000:21:02.0", "pci0000:20/0000:20:00.0")
    machine.disk("bus/pci/devices/0000:21:02.0/virtio9", "vdd")
    machine.node("vdd")

    assert await machine.finder().virtio_block("20/00/02") == "/dev/vdd"


async def plugged_in(machine: Machine, search: Awaitable[str], plug: Callable[[], None]) -> str:
    """What a search finds that began before the device was there."""
    searching = asyncio.ensure_future(search)
    async with asyncio.timeout(5):
        await machine.opened.wait()
    plug()
    for subsystem in ("block", "net", "pci"):
        machine.tell("add", "/devices/whatever", SUBSYSTEM=subsystem)
    return await searching


async def test_a_disk_is_given_only_when_its_node_is_there(machine: Machine) -> None:
    machine.pci("0000:00:05.0")
    machine.disk("bus/pci/devices/0000:00:05.0/virtio3", "vdb")

    found = await plugged_in(machine, machine.finder().virtio_block("05"), lambda: machine.node("vdb"))

    assert found == "/dev/vdb"


async def test_a_disk_is_waited_for_even_if_its_bridge_is_not_there_yet(machine: Machine) -> None:
    def plug() -> None:
        machine.bridge("0000:00:03.0", "0000:02")
        machine.pci("0000:02:00.0", "pci0000:00/0000:00:03.0")
        machine.disk("bus/pci/devices/0000:02:00.0/virtio3", "vdb")
        machine.node("vdb")

    assert await plugged_in(machine, machine.finder().virtio_block("03/00"), plug) == "/dev/vdb"


async def test_a_disk_on_a_channel_is_found(machine: Machine) -> None:
    machine.disk("bus/ccw/devices/0.0.0003/virtio1", "vdb")
    machine.node("vdb")

    assert await machine.finder().ccw_block("0.0.3") == "/dev/vdb"


async def test_scsi_hosts_are_scanned_for_a_disk(machine: Machine) -> None:
    for host in ("host0", "host1"):
        (machine.root / "sys/class/scsi_host" / host).mkdir(parents=True)
        (machine.root / "sys/class/scsi_host" / host / "scan").touch()
    machine.disk("bus/scsi/devices/1:0:4:2", "sda")
    machine.node("sda")

    assert await machine.finder().scsi_disk("4:2") == "/dev/sda"
    scans = [path.read_text() for path in machine.root.glob("sys/class/scsi_host/*/scan")]
    assert scans == ["0 4 2", "0 4 2"]
    assert machine.modules == ["virtio_scsi", "sd_mod"]


async def test_a_disk_with_another_number_is_not_taken(machine: Machine) -> None:
    machine.disk("bus/scsi/devices/1:0:4:20", "sda")
    machine.node("sda")

    with pytest.raises(AgentError, match="waiting for uevent of the SCSI disk 4:2"):
        await machine.finder(timeout=0.01).scsi_disk("4:2")


async def test_a_device_with_a_name_is_found_and_its_driver_loaded_unless_it_is_there(machine: Machine) -> None:
    (machine.root / "sys/module/nfit").mkdir(parents=True)
    machine.disk("devices/LNXSYSTM:00/ndbus0/region0/namespace0.0", "pmem0")
    machine.node("pmem0")

    assert await machine.finder().pmem("/dev/pmem0") == "/dev/pmem0"
    assert machine.modules == ["virtio_pmem", "nd_pmem"]


@pytest.mark.parametrize("path", ["", "pmem0", "/dev/", "/dev/..", "/dev/mapper/x", "/etc/passwd"])
async def test_what_is_no_name_of_a_device_is_told(machine: Machine, path: str) -> None:
    with pytest.raises(InvalidArgument, match="expected /dev/<name>"):
        await machine.finder().block(path)


class TestVfio:
    ADDRESS = "0000:01:00.0"

    @pytest.fixture
    def finder(self, machine: Machine) -> Finder:
        machine.bridge("0000:00:02.0", "0000:01")
        device = machine.pci(self.ADDRESS, "pci0000:00/0000:00:02.0")
        (device / "driver_override").touch()
        (machine.root / "sys/bus/pci/drivers_probe").touch()
        for driver in ("mlx5_core", "vfio-pci"):
            place = machine.root / "sys/bus/pci/drivers" / driver
            place.mkdir(parents=True)
            (place / "unbind").touch()
        return machine.finder(timeout=0.05)

    def _written(self, machine: Machine, path: str) -> str:
        return (machine.root / "sys/bus/pci" / path).read_text()

    def _in_group(self, machine: Machine) -> None:
        group = machine.root / "sys/kernel/iommu_groups/7"
        group.mkdir(parents=True)
        (machine.root / "sys/bus/pci/devices" / self.ADDRESS / "iommu_group").symlink_to(group)
        machine.node("vfio/7")

    async def test_a_device_changes_its_driver_for_vfio_pci(self, machine: Machine, finder: Finder) -> None:
        self._in_group(machine)
        driver = machine.root / "sys/bus/pci/drivers/mlx5_core"
        (machine.root / "sys/bus/pci/devices" / self.ADDRESS / "driver").symlink_to(driver)

        assert await finder.pci_device("02/00") == self.ADDRESS
        assert await finder.vfio_node(self.ADDRESS) == ("7", "/dev/vfio/7")

        assert self._written(machine, f"devices/{self.ADDRESS}/driver_override") == "vfio-pci"
        assert self._written(machine, "drivers/mlx5_core/unbind") == self.ADDRESS
        assert self._written(machine, "drivers_probe") == self.ADDRESS
        assert machine.modules == ["vfio_pci", "vfio_iommu_type1"]

    async def test_a_device_that_vfio_pci_has_stays_with_it(self, machine: Machine, finder: Finder) -> None:
        self._in_group(machine)
        driver = machine.root / "sys/bus/pci/drivers/vfio-pci"
        (machine.root / "sys/bus/pci/devices" / self.ADDRESS / "driver").symlink_to(driver)

        await finder.vfio_node(self.ADDRESS)

        assert self._written(machine, "drivers/vfio-pci/unbind") == ""
        assert self._written(machine, "drivers_probe") == ""

    async def test_a_device_without_an_iommu_group_is_refused(self, machine: Machine, finder: Finder) -> None:
        with pytest.raises(AgentError, match=r"0000:01:00.0 has no IOMMU group"):
            await finder.vfio_node(self.ADDRESS)


async def test_a_queue_of_a_crypto_adapter_is_waited_for(machine: Machine) -> None:
    with pytest.raises(AgentError, match=r"waiting for uevent of the AP queue 0a.0031"):
        await machine.finder(timeout=0.01).ap_queue("0a.0031")

    (machine.root / "sys/devices/ap/card0a/0a.0031").mkdir(parents=True)
    await machine.finder().ap_queue("0a.0031")
