from __future__ import annotations

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.bus import CcwBus, PciBus, ScsiPlace
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


def test_what_comes_later_sits_behind_bridges_of_thirty_slots_each() -> None:
    bus = PciBus()
    bus.place()
    places, bridges = bus.for_later(2)
    assert [part.option()[1].split(",")[:3] for part in bridges] == [
        ["pci-bridge", "id=pci-bridge-0", "bus=pcie.0"],
        ["pci-bridge", "id=pci-bridge-1", "bus=pcie.0"],
    ]
    assert len(places) == 60
    assert [places[number].guest_address for number in (0, 29, 30)] == ["02/01", "02/1e", "03/01"]
    assert places[30].device("virtio-blk", "disk", {}) == Frontend(
        "virtio-blk-pci", "disk", {"bus": "pci-bridge-1", "addr": "0x1"}
    )
    assert CcwBus().for_later(2)[0][1].guest_address == "0.0.0002"


def test_a_scsi_disk_is_found_by_target_and_unit() -> None:
    place = ScsiPlace(257)
    assert (place.guest_address, place.driver, place.disk) == ("1:1", "scsi", "scsi-hd")
    assert place.device("scsi-hd", "disk", {"drive": "d"}) == Frontend(
        "scsi-hd", "disk", {"bus": "scsi0.0", "scsi-id": 1, "lun": 1, "drive": "d"}
    )


def test_agents_are_told_which_bus_a_disk_is_at() -> None:
    assert (PciBus().place().driver, CcwBus().place().driver) == ("blk", "blk-ccw")
