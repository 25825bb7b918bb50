"""Devices of the host, found on a sysfs made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError, VfioDevice, VfioKind
from kata_py.hypervisor.vfio import find

GPU, AUDIO, BRIDGE = "0000:01:00.0", "0000:01:00.1", "0000:00:01.0"
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


class Host:
    """A sysfs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.groups = root / "sys/kernel/iommu_groups"
        self.groups.mkdir(parents=True)

    def add(self, path: str, *, group: int, kind: str = "0x030000", driver: str = "vfio-pci") -> Path:
        """A device at a path below sys/devices, in a group, with a driver."""
        device = self.root / "sys/devices" / path
        device.mkdir(parents=True)
        (device / "class").write_text(f"{kind}\n")
        if driver:
            drivers = self.root / "sys/bus/pci/drivers" / driver
            drivers.mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(drivers)
        members = self.groups / str(group) / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / device.name).symlink_to(device)
        return device

    def mediated(self, path: str, kind: str, *, group: int) -> Path:
        """A mediated device of that type."""
        device = self.add(path, group=group, driver="vfio_mdev")
        (device / "class").unlink()
        types = self.root / "sys/types" / kind
        types.mkdir(parents=True)
        (device / "mdev_type").symlink_to(types)
        return device

    def find(self, node: str) -> tuple[VfioDevice, ...]:
        return find(Path(node), self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path.resolve())


def test_a_group_is_all_of_its_devices_but_bridges(host: Host) -> None:
    host.add(f"pci0000:00/{BRIDGE}", group=12, kind="0x060400", driver="pcieport")
    gpu = host.add(f"pci0000:00/{BRIDGE}/{GPU}", group=12)
    audio = host.add(f"pci0000:00/{BRIDGE}/{AUDIO}", group=12, kind="0x040300")
    assert host.find("/dev/vfio/12") == (
        VfioDevice(GPU, VfioKind.PCI, gpu), VfioDevice(AUDIO, VfioKind.PCI, audio),
    )  # fmt: skip


def test_a_device_by_itself_is_found_by_its_class(host: Host) -> None:
    gpu = host.add(f"pci0000:00/{GPU}", group=3)
    (gpu / "vfio-dev/vfio7").mkdir(parents=True)
    by_class = host.root / "sys/class/vfio-dev/vfio7"
    by_class.mkdir(parents=True)
    (by_class / "device").symlink_to(gpu)
    assert host.find("/dev/vfio/devices/vfio7") == (VfioDevice(GPU, VfioKind.PCI, gpu, iommufd=True),)


def test_a_part_of_a_device_goes_by_the_devices_address_and_its_own_directory(host: Host) -> None:
    part = host.mediated(f"pci0000:00/{GPU}/{UUID}", "nvidia-22", group=40)
    assert host.find("/dev/vfio/40") == (VfioDevice(GPU, VfioKind.MEDIATED, part),)


def test_crypto_queues_and_channel_devices_of_s390x_are_told_by_their_types(host: Host) -> None:
    matrix = host.mediated(f"vfio_ap/matrix/{UUID}", "vfio_ap-passthrough", group=1)
    (matrix / "matrix").write_text("05.0031\n05.0032\n")
    assert host.find("/dev/vfio/1") == (
        VfioDevice(UUID, VfioKind.AP, matrix, queues=("05.0031", "05.0032")),
    )  # fmt: skip
    channel = host.mediated(f"css0/0.0.0313/0.0.1234/{UUID}", "vfio_ccw-io", group=2)
    assert host.find("/dev/vfio/2") == (VfioDevice(UUID, VfioKind.CCW, channel),)


def test_a_host_without_an_iommu_is_told_with_the_fix(host: Host) -> None:
    with pytest.raises(HypervisorError, match=r"no IOMMU group \(turn on VT-d or AMD-Vi .* intel_iommu=on"):
        host.find("/dev/vfio/12")


@pytest.mark.parametrize("node", ["/dev/vfio/13", "/dev/vfio/devices/vfio0"])
def test_a_device_that_is_not_there_is_told_by_its_node(host: Host, node: str) -> None:
    host.add(f"pci0000:00/{GPU}", group=12)
    with pytest.raises(HypervisorError, match=f"{node}: the host has no such device; ls .*iommu_groups"):
        host.find(node)


@pytest.mark.parametrize(("driver", "told"), [("nvidia", "nvidia"), ("", "no driver")])
def test_a_device_that_the_host_drives_is_told_with_the_fix(host: Host, driver: str, told: str) -> None:
    host.add(f"pci0000:00/{GPU}", group=12)
    host.add(f"pci0000:00/{AUDIO}", group=12, driver=driver)
    with pytest.raises(HypervisorError, match=rf"{AUDIO} is bound to {told}, not to vfio-pci \(driverctl set-override"):
        host.find("/dev/vfio/12")


def test_a_group_of_bridges_gives_nothing(host: Host) -> None:
    host.add(f"pci0000:00/{BRIDGE}", group=12, kind="0x060400", driver="pcieport")
    with pytest.raises(HypervisorError, match="only bridges"):
        host.find("/dev/vfio/12")


def test_what_is_no_node_of_vfio_is_not_looked_for(host: Host) -> None:
    with pytest.raises(HypervisorError, match="/dev/sda is no device of VFIO"):
        host.find("/dev/sda")
