from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.config.hypervisor import BlockConfig
from kata_py.hypervisor.api import BlockDevice, HypervisorError
from kata_qemu.bus import PciPlace
from kata_qemu.devices.block import Disk
from kata_qemu.monitor import Event
from kata_qemu.vm import cause, disk

PANIC = "[    0.98] Kernel panic - not syncing: Attempted to kill init!"


@pytest.mark.parametrize(
    ("how", "shutdown", "tail", "told"),
    [
        ("qemu was killed by signal 9", None, (), "qemu was killed by signal 9"),
        ("qemu exited with status 1", None, (PANIC,), "qemu exited with status 1"),
        ("qemu exited with status 0", "guest-shutdown", (), "guest powered off"),
        ("qemu exited with status 0", "guest-reset", ("bye",), "guest rebooted"),
        (
            "qemu exited with status 0",
            "guest-reset",
            ("hi", PANIC, f"---[ end {PANIC} ]---"),
            "guest rebooted after 'Kernel panic - not syncing: Attempted to kill init!'",
        ),
        ("qemu exited with status 0", "host-signal", (), "qemu exited with status 0"),
    ],
)
def test_a_machines_end_is_told_in_the_words_that_tell_most(
    how: str, shutdown: str | None, tail: tuple[str, ...], told: str
) -> None:
    event = Event("SHUTDOWN", {"guest": True, "reason": shutdown}) if shutdown else None
    assert cause(how, event, tail) == told


def test_a_file_becomes_a_disk_that_the_guest_knows_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    tuning = BlockConfig(block_device_aio="threads")
    assert disk(BlockDevice("a" * 20, path, read_only=True), PciPlace(3), tuning) == Disk(
        "a" * 20, path, PciPlace(3), True, tuning=tuning
    )


@pytest.mark.parametrize("id", ["", "a" * 21, "a,b", "a b", "ä", "../a"])
def test_an_id_that_is_no_serial_number_is_refused(id: str) -> None:
    with pytest.raises(HypervisorError, match="is not 20 letters, digits or hyphens at most"):
        disk(BlockDevice(id, Path("/dev/null")), PciPlace(3), BlockConfig())
