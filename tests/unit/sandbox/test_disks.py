from __future__ import annotations

from pathlib import Path

import pytest

from kata_protos.agent_pb2 import CreateContainerRequest, Storage
from kata_py.hypervisor.api import Device, GuestDevice, HypervisorError
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox.disks import Disks, DiskUse
from kata_py.sandbox.errors import FailedPrecondition
from kata_py.sandbox.volumes import disk_of
from kata_py.storage import direct
from kata_py.storage.direct import DirectVolume
from tests.drivers.journal import ListJournal

REQUEST = CreateContainerRequest(container_id="c1", storages=[Storage(driver="ephemeral")])


class Machine:
    """What takes disks."""

    def __init__(self) -> None:
        self.there: dict[str, Device] = {}
        self.refuses = False

    async def attach(self, device: Device) -> GuestDevice:
        if self.refuses:
            raise HypervisorError("qemu", "no place")
        self.there[device.id] = device  # type: ignore[union-attr]
        return GuestDevice(device.id, f"0:{len(self.there)}", "scsi")  # type: ignore[union-attr]

    async def detach(self, device: GuestDevice) -> None:
        del self.there[device.id]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def journal() -> ListJournal:
    return ListJournal()


@pytest.fixture
def disks(machine: Machine, journal: ListJournal) -> Disks:
    return Disks(machine, "pod", journal)  # type: ignore[arg-type]


async def test_a_container_is_told_where_its_disks_are_and_mounts_them_first(disks: Disks, tmp_path: Path) -> None:
    uses = [
        DiskUse(disk_of(Path("/a")), node="/dev/a"),
        DiskUse(disk_of(Path("/b")), storage=Storage(mount_point="/m")),
    ]
    async with disks.given(REQUEST, uses) as told:
        [device] = told.devices
        assert (device.type, device.id, device.container_path) == ("scsi", "0:1", "/dev/a")
        assert [(each.driver, each.source) for each in told.storages] == [("scsi", "0:2"), ("ephemeral", "")]


async def test_a_disk_is_plugged_in_for_the_first_and_taken_out_after_the_last(disks: Disks, machine: Machine) -> None:
    use = DiskUse(disk_of(Path("/a")), node="/dev/a")
    async with disks.given(REQUEST, [use]) as first:
        async with disks.given(REQUEST, [use]) as second:
            assert first.devices == second.devices
        assert len(machine.there) == 1
    assert machine.there == {}


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
async def test_a_disk_is_not_read_only_for_one_and_written_by_another(
    disks: Disks, machine: Machine, first: bool, second: bool
) -> None:
    def use(read_only: bool) -> DiskUse:
        return DiskUse(disk_of(Path("/a"), read_only=read_only), node="/dev/a")

    async with disks.given(REQUEST, [use(first)]):
        with pytest.raises(FailedPrecondition, match=r"/a is (read-only for|written by) another container"):
            async with disks.given(REQUEST, [use(second)]):
                raise AssertionError("entered")
        assert len(machine.there) == 1
    assert machine.there == {}


async def test_the_sandbox_of_a_direct_volume_is_known_while_it_uses_it(
    disks: Disks, machine: Machine, journal: ListJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = direct.noted
    monkeypatch.setattr(direct, "noted", lambda path, sandbox, journal: noted(path, sandbox, journal, tmp_path))
    direct.add("/volume", DirectVolume(Path("/a"), "ext4"), tmp_path)
    use = DiskUse(disk_of(Path("/a")), storage=Storage(), direct=Path("/volume"))
    async with disks.given(REQUEST, [use]):
        assert direct.sandbox_of("/volume", tmp_path) == "pod"
    assert direct.sandbox_of("/volume", tmp_path) is None
    machine.refuses = True
    with pytest.raises(HypervisorError):
        async with disks.given(REQUEST, [use]):
            raise AssertionError("entered")
    assert direct.sandbox_of("/volume", tmp_path) is None
    assert journal.entries == []


async def test_an_image_is_made_once_without_a_block_and_stays_on_record(
    disks: Disks, journal: ListJournal, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    use = DiskUse(disk_of(image), storage=Storage(), made=True)
    for _ in range(2):
        async with disks.given(REQUEST, [use]):
            assert image.stat().st_size > 1 << 20
            assert image.stat().st_blocks == 0
    assert journal.entries == [RemoveFile(str(image))]
