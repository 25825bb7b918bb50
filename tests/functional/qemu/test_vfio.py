"""Ports for devices of the host in the real QEMU, and what is said where the host has no such devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_py.hypervisor.api import GuestDevice, HypervisorError, VfioDevice, VfioKind
from tests.functional.qemu.conftest import Bench

ABSENT = VfioDevice("0000:7f:1f.7", VfioKind.PCI, Path("/sys/bus/pci/devices/0000:7f:1f.7"))


@pytest.mark.parametrize(
    ("keys", "bus"),
    [
        ({"hot_plug_vfio": "root-port", "pcie_root_port": 3}, "pcie-root-port"),
        ({"hot_plug_vfio": "switch-port", "pcie_switch_port": 2}, "xio3130-downstream"),
        ({"hot_plug_vfio": "bridge-port"}, "pci-bridge"),
        ({"pcie_root_port": 4}, "pcie-root-port"),
    ],
)
async def test_a_machine_has_the_ports_that_the_configuration_keeps_and_its_guest_boots(
    bench: Bench, keys: dict[str, Any], bus: str
) -> None:
    bench.config = replace(bench.config, **keys)
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        line = Path(f"/proc/{vm.pid}/cmdline").read_bytes().decode()
        assert line.count(f"{bus},") >= max([*(value for value in keys.values() if isinstance(value, int)), 1])
        with pytest.raises(HypervisorError, match=r"0000:7f:1f\.7|no place is left"):
            await vm.attach(ABSENT)


async def test_a_device_that_cannot_be_plugged_in_leaves_its_place_to_the_next(bench: Bench) -> None:
    bench.config = replace(bench.config, hot_plug_vfio="root-port", pcie_root_port=1)
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        for _ in range(3):  # with one port
            with pytest.raises(HypervisorError, match=r"0000:7f:1f\.7"):
                await vm.attach(ABSENT)


async def test_a_machine_does_not_start_without_the_device_that_it_is_given(bench: Bench) -> None:
    bench.config = replace(bench.config, cold_plug_vfio="root-port")
    bench.spec = bench.spec.having((ABSENT,))
    with pytest.raises(HypervisorError, match=r"0000:7f:1f\.7"):
        async with bench.launch():
            raise AssertionError("launched")


async def test_a_machine_has_an_iommu_where_the_configuration_wants_one(bench: Bench) -> None:
    bench.config = replace(bench.config, enable_iommu=True)
    bench.share()
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        line = Path(f"/proc/{vm.pid}/cmdline").read_bytes().decode()
        assert "intel-iommu,id=iommu,intremap=on,device-iotlb=on,caching-mode=on" in line
        assert "kernel_irqchip" not in line  # TCG has none in the kernel


async def test_a_machine_that_has_no_iommu_is_told(bench: Bench) -> None:
    bench.s390x()
    bench.config = replace(bench.config, enable_iommu=True)
    with pytest.raises(HypervisorError, match="s390-ccw-virtio has no IOMMU"):
        async with bench.launch():
            raise AssertionError("launched")


async def test_what_was_never_plugged_in_cannot_be_taken_out(bench: Bench) -> None:
    async with bench.launch() as vm:
        with pytest.raises(HypervisorError, match="was not plugged in"):
            await vm.detach(GuestDevice("vfio-0000-01-00-0", "05/00"))
