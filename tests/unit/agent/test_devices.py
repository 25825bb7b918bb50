from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kata_agent.device import environment, handlers
from kata_agent.device.finder import Finder
from kata_agent.device.node import Node, with_nodes
from kata_agent.device.table import DeviceTable
from kata_agent.errors import AgentError, InvalidArgument
from kata_protos.agent_pb2 import Device
from kata_py.oci.spec import Spec
from tests.unit.agent.machine import Machine

ZERO = Path("/dev/zero").stat().st_rdev


def spec(*devices: tuple[str, str, int, int], rules: list[Any] | None = None, env: tuple[str, ...] = ()) -> Spec:
    named = [{"path": path, "type": kind, "major": major, "minor": minor} for path, kind, major, minor in devices]
    document: dict[str, Any] = {"ociVersion": "1.0.2", "linux": {"devices": named}}
    document["process"] = {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "env": list(env)}
    if rules is not None:
        document["linux"]["resources"] = {"devices": rules}
    return document  # type: ignore[return-value]


class TestNodes:
    def test_the_host_s_numbers_become_the_guest_s(self) -> None:
        before = spec(("/dev/a", "b", 8, 0), ("/dev/b", "c", 10, 200))

        after = with_nodes(before, {"/dev/a": Node("b", 254, 16)})

        assert after["linux"]["devices"] == spec(("/dev/a", "b", 254, 16), ("/dev/b", "c", 10, 200))["linux"]["devices"]
        assert before == spec(("/dev/a", "b", 8, 0), ("/dev/b", "c", 10, 200))

    def test_rules_follow_and_the_device_is_allowed(self) -> None:
        rules = [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
            {"allow": True, "type": "c", "major": 8, "minor": 0, "access": "rw"},
            {"allow": True, "type": "b", "major": 8, "access": "m"},
        ]
        guests = {"allow": True, "type": "b", "major": 254, "minor": 16}

        after = with_nodes(spec(("/dev/a", "b", 8, 0), rules=rules), {"/dev/a": Node("b", 254, 16)})

        made = after["linux"]["resources"]["devices"]
        assert made == [rules[0], {**guests, "access": "r"}, rules[2], rules[3], {**guests, "access": "rwm"}]

    def test_two_devices_may_change_numbers_with_each_other(self) -> None:
        rules = [{"allow": True, "type": "b", "major": 8, "minor": minor, "access": "r"} for minor in (0, 16)]

        after = with_nodes(
            spec(("/dev/a", "b", 8, 0), ("/dev/b", "b", 8, 16), rules=rules),
            {"/dev/a": Node("b", 8, 16), "/dev/b": Node("b", 8, 0)},
        )

        assert [device["minor"] for device in after["linux"]["devices"]] == [16, 0]
        assert [rule["minor"] for rule in after["linux"]["resources"]["devices"]] == [16, 0, 16, 0]

    def test_a_spec_without_rules_allows_all_and_stays_so(self) -> None:
        after = with_nodes(spec(("/dev/a", "b", 8, 0)), {"/dev/a": Node("b", 254, 16)})

        assert "resources" not in after["linux"]

    def test_a_device_that_the_spec_does_not_name_is_refused(self) -> None:
        with pytest.raises(AgentError, match=r"^Missing devices in OCI spec: /dev/b$"):
            with_nodes(spec(("/dev/a", "b", 8, 0)), {"/dev/b": Node("b", 254, 16)})

    def test_two_devices_with_the_same_numbers_are_refused(self) -> None:
        with pytest.raises(AgentError, match="Conflicting device updates for host numbers 8:0"):
            with_nodes(
                spec(("/dev/a", "b", 8, 0), ("/dev/b", "b", 8, 0)),
                {"/dev/a": Node("b", 254, 16), "/dev/b": Node("b", 254, 32)},
            )


GUEST = {"0000:5e:00.1": "0000:01:00.0", "0000:01:00.0": "0000:02:00.0"}


class TestEnvironment:
    def test_addresses_are_translated_all_at_once(self) -> None:
        info = json.dumps({"0000:5e:00.1": {"generic": {"deviceID": "0000:5e:00.1"}}, "0000:01:00.0": {}})
        variables = ["PATH=/bin", "PCIDEVICE_VENDOR_NIC=0000:5E:00.1,0000:01:00.0", f"PCIDEVICE_VENDOR_NIC_INFO={info}"]

        path, addresses, told = environment.translated(variables, GUEST)

        assert (path, addresses) == ("PATH=/bin", "PCIDEVICE_VENDOR_NIC=0000:01:00.0,0000:02:00.0")
        after = json.loads(told.partition("=")[2])
        assert after == {"0000:01:00.0": {"generic": {"deviceID": "0000:01:00.0"}}, "0000:02:00.0": {}}

    def test_what_is_no_address_stays(self) -> None:
        assert environment.translated(["PCIDEVICE_X=ens1f0"], GUEST) == ["PCIDEVICE_X=ens1f0"]

    def test_a_device_that_was_not_given_is_named(self) -> None:
        with pytest.raises(AgentError, match=r"PCIDEVICE_X: Unable to translate host PCI address 0000:ff:00.0"):
            environment.translated(["PCIDEVICE_X=0000:ff:00.0"], GUEST)

    def test_a_container_without_such_devices_keeps_its_own(self) -> None:
        assert environment.translated(["PCIDEVICE_X=0000:ff:00.0"], {}) == ["PCIDEVICE_X=0000:ff:00.0"]


@pytest.fixture
def vfio(machine: Machine) -> Finder:
    """A machine with two functions that vfio-pci has, in groups 7 and 8."""
    driver = machine.root / "sys/bus/pci/drivers/vfio-pci"
    driver.mkdir(parents=True)
    for slot, group in (("02", "7"), ("03", "8")):
        place = machine.pci(f"0000:00:{slot}.0")
        (place / "driver").symlink_to(driver)
        groups = machine.root / "sys/kernel/iommu_groups" / group
        groups.mkdir(parents=True)
        (place / "iommu_group").symlink_to(groups)
        machine.node(f"vfio/{group}")
    return machine.finder(timeout=0.05)


@pytest.fixture
def infiniband(tmp_path: Path) -> Path:
    directory = tmp_path / "infiniband"
    directory.mkdir()
    os.mknod(directory / "uverbs0", 0o020600, ZERO)
    (directory / "by-path").mkdir()
    return directory


class TestFind:
    @pytest.mark.parametrize(
        ("device", "message"),
        [
            (Device(id="02", container_path="/dev/a"), "invalid type"),
            (Device(type="blk", container_path="/dev/a"), "invalid ID and VM path"),
            (Device(type="blk", id="02"), "invalid container path"),
            (Device(type="blk", id="zz", container_path="/dev/a"), "PCI path 'zz'"),
        ],
    )
    async def test_a_device_that_is_not_described_in_full_is_refused(
        self, machine: Machine, device: Device, message: str
    ) -> None:
        with pytest.raises(InvalidArgument, match=message):
            await handlers.find(machine.finder(), [device])

    async def test_an_unknown_kind_is_named(self, machine: Machine) -> None:
        with pytest.raises(AgentError, match="Failed to find the device handler floppy"):
            await handlers.find(machine.finder(), [Device(type="floppy", id="a", container_path="/dev/a")])

    async def test_a_disk_that_does_not_appear_is_told_with_its_place(self, machine: Machine) -> None:
        device = Device(type="blk", id="02/00", container_path="/dev/a")
        with pytest.raises(AgentError, match=r"Timeout after 0.01 s .* virtio-blk disk at PCI path 02.0/00.0"):
            await handlers.find(machine.finder(timeout=0.01), [device])

    async def test_a_device_for_the_guest_s_kernel_changes_addresses_alone(self, vfio: Finder, tmp_path: Path) -> None:
        options = ["0000:5e:00.1=02", "0000:5e:00.2="]
        device = Device(type="vfio-pci-gk", id="g", container_path="/dev/vfio/12", options=options)

        changes = await handlers.find(vfio, [device], tmp_path / "no-infiniband")

        made = changes.made(spec(("/dev/a", "b", 8, 0), env=("PCIDEVICE_X=0000:5e:00.1",)))
        assert made == spec(("/dev/a", "b", 8, 0), env=("PCIDEVICE_X=0000:00:02.0",))

    async def test_rdma_devices_come_along_with_those_of_vfio(self, vfio: Finder, infiniband: Path) -> None:
        device = Device(type="vfio-pci-gk", id="g", container_path="/dev/vfio/12", options=["0000:5e:00.1=02"])

        changes = await handlers.find(vfio, [device], infiniband)

        (made,) = changes.made(spec(rules=[{"allow": False, "access": "rwm"}]))["linux"]["devices"]
        assert (made["path"], made["type"]) == (str(infiniband / "uverbs0"), "c")
        assert (made["major"], made["minor"]) == (os.major(ZERO), os.minor(ZERO))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["0000:5e:00.1"], "Malformed VFIO PCI option"),
            (["0000:5e:00.1=02=03"], "Malformed VFIO PCI option"),
            (["5e:00.1=02"], "PCI address '5e:00.1'"),
            (["0000:5e:00.1=04"], "waiting for uevent of the PCI device at path 04.0"),
            (["0000:5e:00.1=02", "0000:5e:00.2=03"], "0000:00:02.0, 0000:00:03.0 are not in one IOMMU group"),
            (["0000:5e:00.1="], "failed to get VFIO group for g: no device was given"),
        ],
    )
    async def test_what_vfio_cannot_do_is_told(self, vfio: Finder, options: list[str], message: str) -> None:
        device = Device(type="vfio-pci", id="g", container_path="/dev/vfio/12", options=options)
        with pytest.raises(AgentError, match=message):
            await handlers.find(vfio, [device])

    async def test_two_devices_for_one_path_are_refused(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def zero(finder: Finder, device: Device) -> handlers.Update:
            return handlers.Update(Node("c", 1, 5))

        monkeypatch.setitem(handlers.HANDLERS, "blk", zero)
        devices = [Device(type="blk", id=f"0{slot}", container_path="/dev/a") for slot in (2, 3)]
        with pytest.raises(AgentError, match="Conflicting device updates for /dev/a"):
            await handlers.find(machine.finder(), devices)


async def test_a_container_s_later_processes_see_the_guest_s_addresses_until_it_is_forgotten(vfio: Finder) -> None:
    table = DeviceTable(vfio)
    device = Device(type="vfio-pci-gk", id="g", container_path="/dev/vfio/12", options=["0000:5e:00.1=02"])
    process = spec(env=("PCIDEVICE_X=0000:5e:00.1",))["process"]

    await table.prepare("c1", spec(), [device])

    assert table.translated("c1", process)["env"] == ["PCIDEVICE_X=0000:00:02.0"]
    assert table.translated("c2", process) == process
    table.forget("c1")
    assert table.translated("c1", process) == process
