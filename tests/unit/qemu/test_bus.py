from __future__ import annotations

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.bus import CcwBus, PciBus
from kata_qemu.parts import Frontend


def test_devices_of_the_root_bus_get_slots_from_one_upwards() -> None:
    bus = PciBus()
    first, second = bus.place(), bus.place()
    assert (first.guest_address, second.guest_address) == ("01", "02")
    assert second.device("virtio-blk", "disk", {"serial": "x"}) == Frontend(
        "virtio-blk-pci", "disk", {"bus": "pcie.0", "addr": "0x2", "serial": "x"}
    )


def test_properties_of_pci_alone_are_not_told_to_other_buses() -> None:
    assert PciBus().place().device("virtio-net", "n", {"mq": True}, pci={"romfile": ""}) == Frontend(
        "virtio-net-pci", "n", {"bus": "pcie.0", "addr": "0x1", "mq": True, "romfile": ""}
    )
    assert CcwBus().place().device("virtio-net", "n", {"mq": True}, pci={"romfile": ""}) == Frontend(
        "virtio-net-ccw", "n", {"devno": "fe.0.0001", "mq": True}
    )


def test_a_port_is_a_root_port_and_the_slot_behind_it() -> None:
    bus = PciBus()
    bus.place()
    place, parts = bus.port()
    assert parts == (Frontend("pcie-root-port", "port2", {"bus": "pcie.0", "addr": "0x2", "chassis": 2}),)
    assert place.guest_address == "02/00"
    assert place.device("vhost-user-fs", "fs", {}) == Frontend("vhost-user-fs-pci", "fs", {"bus": "port2"})


def test_slots_are_told_in_hexadecimal() -> None:
    bus = PciBus()
    for _ in range(25):
        bus.place()
    assert bus.port()[0].guest_address == "1a/00"


def test_a_full_bus_is_an_error_that_says_so() -> None:
    bus = PciBus()
    for _ in range(30):
        bus.place()
    with pytest.raises(HypervisorError, match="bus is full"):
        bus.port()


def test_a_device_number_is_enough_for_a_channel_device_whenever_it_comes() -> None:
    bus = CcwBus()
    first, (place, parts) = bus.place(), bus.port()
    assert (first.guest_address, place.guest_address, parts) == ("0.0.0001", "0.0.0002", ())
    assert place.device("virtio-blk", "disk", {}) == Frontend("virtio-blk-ccw", "disk", {"devno": "fe.0.0002"})
