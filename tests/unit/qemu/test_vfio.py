"""Devices of the host and their ports, as QEMU is told of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from kata_py.config.hypervisor import VfioPort
from kata_py.hypervisor.api import HypervisorError, VfioDevice, VfioKind
from kata_qemu.bus import CcwBus, CcwPlace, PciBus, PciPlace, Place
from kata_qemu.devices.vfio import PortPlace, Vfio, ports

GOLDEN = Path(__file__).parent / "golden" / "vfio.txt"
SYSFS = Path("/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0")
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
DEVICES = {
    "group": (VfioDevice("0000:01:00.0", VfioKind.PCI, SYSFS), PciPlace(0, "port5", 5)),
    "by itself": (VfioDevice("0000:01:00.0", VfioKind.PCI, SYSFS, iommufd=True), PortPlace("swdp0", 0, "05/00/00/00")),
    "part": (VfioDevice("0000:01:00.0", VfioKind.MEDIATED, SYSFS / UUID), PortPlace("pci-bridge-vfio", 1, "02/01")),
    "crypto": (VfioDevice(UUID, VfioKind.AP, Path("/sys/devices/vfio_ap/matrix") / UUID), CcwPlace(7)),
    "channel": (VfioDevice(UUID, VfioKind.CCW, Path("/sys/bus/mdev/devices") / UUID), CcwPlace(8)),
}  # fmt: skip


def test_ports_and_devices_are_rendered_as_was_agreed() -> None:
    lines = []
    for kind in get_args(VfioPort):
        lines.append(f"# {kind}")
        places, parts = ports(kind, 2, PciBus())
        lines += [" ".join(part.option()) for part in parts]
        lines.append(f"# in the guest: {', '.join(place.guest_address for place in places[:3])}")
    for name, (device, place) in DEVICES.items():
        lines.append(f"# {name}")
        for part in Vfio(device, place).parts():
            lines += [" ".join(part.option()), f"{part.addition().name} {dict(part.addition().arguments)}"]
    assert "\n".join(lines) + "\n" == GOLDEN.read_text()


@pytest.mark.parametrize("name", DEVICES)
def test_a_devices_name_is_one_that_qemu_takes(name: str) -> None:
    device, place = DEVICES[name]
    assert re.fullmatch(r"[a-zA-Z][\w.-]*", device.id)
    assert Vfio(device, place).parts()[-1].removal().arguments == {"id": device.id}


def test_no_port_is_no_place() -> None:
    assert ports("no-port", 3, PciBus()) == ([], [])
    assert ports("root-port", 0, PciBus()) == ([], [])


def test_a_machine_of_s390x_has_no_switches_and_bridges_but_takes_a_device_anywhere() -> None:
    kinds: tuple[Any, ...] = ("switch-port", "bridge-port")
    for kind in kinds:
        with pytest.raises(HypervisorError, match=f"no PCI for a {kind}"):
            ports(kind, 1, CcwBus())
    expected: list[Place] = [CcwPlace(1), CcwPlace(2)]
    assert ports("root-port", 2, CcwBus()) == (expected, [])
