"""What is left of a disk, told by a sysfs of our own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kata_caa.forwarder import mapper, scratch
from kata_caa.forwarder.mapper import MapperError
from kata_caa.forwarder.scratch import ScratchError, Space, disk_of, space_after

MEBIBYTE, SECTORS = 1 << 20, 2048  # of a mebibyte


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{number}\n")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of a gibibyte with two partitions, the first of which is the last on it."""
    disk = tmp_path / "devices/vda"
    write(disk / "size", 1024 * SECTORS)
    for number, start, size in ((1, 40 * SECTORS, 59 * SECTORS + 1), (2, SECTORS, 39 * SECTORS)):
        write(disk / f"vda{number}/partition", number)
        write(disk / f"vda{number}/start", start)
        write(disk / f"vda{number}/size", size)
    write(disk / "queue/rotational", 1)
    return disk


def test_the_space_after_the_last_partition_leaves_both_second_tables_alone(disk: Path) -> None:
    assert space_after(disk) == Space("vda", 3, 101 * MEBIBYTE, 922 * MEBIBYTE)


def test_a_disk_of_the_size_that_was_built_has_none(disk: Path) -> None:
    write(disk / "size", 101 * SECTORS)
    assert space_after(disk) is None


@dataclass
class Machine:
    """A machine with that disk, which runs no program; its mapper may be missing.

    Attributes:
        ran: What it would have run.
        refuses: What its mapper says.
    """

    ran: list[tuple[str, ...]] = field(default_factory=list)
    refuses: str = ""

    def run(self, *command: str, timeout: float) -> None:
        self.ran.append(command)

    def encrypt(self, name: str, device: Path, sectors: int) -> Path:
        if self.refuses:
            raise MapperError(self.refuses)
        assert (device, sectors) == (Path("/dev/vda3"), 922 * SECTORS)
        return Path("/dev/dm-0")

    def ran_on(self, device: str) -> list[str]:
        return [command[0] for command in self.ran if device in command]


@pytest.fixture
def machine(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(scratch, "disk_of", lambda device: disk)
    monkeypatch.setattr(scratch, "_partition", lambda space: f"{space.disk}{space.number}")
    monkeypatch.setattr(scratch, "_run", machine.run)
    monkeypatch.setattr(mapper, "encrypt", machine.encrypt)
    return machine


def test_what_is_not_to_be_encrypted_is_made_on_the_partition(machine: Machine, tmp_path: Path) -> None:
    assert scratch.mount(tmp_path) == Space("vda", 3, 101 * MEBIBYTE, 922 * MEBIBYTE)
    assert machine.ran_on("/dev/vda3") == ["mke2fs", "busybox"]
    assert len(machine.ran) == 2


def test_what_is_to_be_encrypted_is_made_on_the_device_that_encrypts_alone(machine: Machine, tmp_path: Path) -> None:
    assert scratch.mount(tmp_path, encrypted=True) == Space("vda", 3, 101 * MEBIBYTE, 922 * MEBIBYTE)
    assert machine.ran_on("/dev/dm-0") == ["mke2fs", "busybox"]
    assert machine.ran_on("/dev/vda3") == []


def test_what_cannot_be_encrypted_is_not_used(machine: Machine, tmp_path: Path) -> None:
    machine.refuses = "the kernel has no device mapper"
    with pytest.raises(ScratchError, match="space of vda is not used, as it cannot be encrypted: the kernel has no"):
        scratch.mount(tmp_path, encrypted=True)
    assert [command[:2] for command in machine.ran] == [("busybox", "modprobe")]


@pytest.mark.parametrize(("minimum", "enough"), [(922 * MEBIBYTE, True), (922 * MEBIBYTE + 1, False)])
def test_less_than_the_minimum_is_none(disk: Path, minimum: int, enough: bool) -> None:
    assert (space_after(disk, minimum) is not None) is enough


def test_a_partition_leads_to_its_disk_and_a_disk_without_partitions_to_none(disk: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "dev/block"
    numbers.mkdir(parents=True)
    (numbers / "254:2").symlink_to(disk / "vda2")
    (numbers / "254:0").symlink_to(disk)
    assert disk_of(os.makedev(254, 2), tmp_path) == disk
    assert disk_of(os.makedev(254, 0), tmp_path) is None
    assert disk_of(os.makedev(0, 30), tmp_path) is None
