"""Volumes and mounts that change while containers use them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kata_agent import linux
from kata_protos import agent_pb2 as agent
from kata_protos import csi_pb2 as csi
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import GUEST_SHARE, TIMEOUT, Pod

pytestmark = pytest.mark.root

PLACE = "/run/kata-containers/sandbox/memory"
MEBIBYTE = 1 << 20


def _memory(*options: str, driver: str = "ephemeral") -> agent.Storage:
    return agent.Storage(driver=driver, source="tmpfs", fstype="tmpfs", mount_point=PLACE, options=options)


async def _usage(pod: Pod, path: str) -> dict[int, csi.VolumeUsage]:
    response = await pod.calls.GetVolumeStats(agent.VolumeStatsRequest(volume_guest_path=path), timeout=TIMEOUT)
    assert (response.volume_condition.abnormal, response.volume_condition.message) == (False, "OK")
    return {usage.unit: usage for usage in response.usage}


async def test_memory_is_made_larger_and_keeps_its_files(pod: Pod) -> None:
    request = agent.UpdateEphemeralMountsRequest(storages=[_memory("size=1m", "fsgid=0")])
    await pod.calls.UpdateEphemeralMounts(request, timeout=TIMEOUT)
    (pod.path(PLACE) / "file").write_bytes(bytes(4096))
    before = await _usage(pod, PLACE)

    request = agent.UpdateEphemeralMountsRequest(storages=[_memory("remount", "size=3m"), _memory()])
    await pod.calls.UpdateEphemeralMounts(request, timeout=TIMEOUT)
    after = await _usage(pod, PLACE)

    assert before[csi.VolumeUsage.BYTES].total == MEBIBYTE
    assert after[csi.VolumeUsage.BYTES].total == 3 * MEBIBYTE
    assert after[csi.VolumeUsage.BYTES].used == 4096
    assert after[csi.VolumeUsage.BYTES].available == 3 * MEBIBYTE - 4096
    assert after[csi.VolumeUsage.INODES].used == 2


async def test_only_memory_is_updated(pod: Pod) -> None:
    request = agent.UpdateEphemeralMountsRequest(storages=[_memory("ro", driver="local")])

    with pytest.raises(StatusError, match="local storage is not ephemeral") as refusal:
        await pod.calls.UpdateEphemeralMounts(request, timeout=TIMEOUT)

    assert refusal.value.code is Code.INTERNAL


async def test_a_volume_that_is_not_there_has_no_statistics(pod: Pod) -> None:
    with pytest.raises(StatusError, match="No such file or directory: '/no/volume'") as refusal:
        await _usage(pod, "/no/volume")

    assert refusal.value.code is Code.INTERNAL


async def test_mounts_in_the_share_are_looked_at(pod: Pod) -> None:
    request = agent.UpdateEphemeralMountsRequest(
        storages=[agent.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=f"{GUEST_SHARE}/a",
                                options=["size=1m"])]
    )  # fmt: skip
    await pod.calls.UpdateEphemeralMounts(request, timeout=TIMEOUT)

    await pod.calls.RemoveStaleVirtiofsShareMounts(agent.RemoveStaleVirtiofsShareMountsRequest(), timeout=TIMEOUT)


async def _resize(pod: Pod, path: str, size: int) -> None:
    await pod.calls.ResizeVolume(agent.ResizeVolumeRequest(volume_guest_path=path, size=size), timeout=TIMEOUT)


@dataclass
class Disk:
    """A loop device with ext4, and the file that it is."""

    device: str
    file: Path

    def mount(self, pod: Pod, place: str) -> None:
        pod.path(place).mkdir()
        subprocess.run(["nsenter", "--mount", f"--target={pod.agent_pid}", "mount", self.device, place], check=True)

    def grow(self, size: int) -> None:
        os.truncate(self.file, size)
        subprocess.run(["losetup", "--set-capacity", self.device], check=True)


@pytest.fixture
def disk(top: Path) -> Iterator[Disk]:
    """A disk of 8 MiB."""
    file = top / "disk"
    file.touch()
    os.truncate(file, 8 * MEBIBYTE)
    subprocess.run(["mkfs.ext4", "-q", file], check=True)
    attach = ["losetup", "--find", "--show", file]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    yield Disk(device, file)
    subprocess.run(["losetup", "--detach", device], check=True)  # lazily, if it is mounted still


async def test_a_file_system_grows_into_a_disk_that_has_grown(disk: Disk, pod: Pod) -> None:
    disk.mount(pod, "/run/disk")
    before = (await _usage(pod, "/run/disk"))[csi.VolumeUsage.BYTES].total

    with pytest.raises(StatusError, match=f"has {8 * MEBIBYTE} bytes, not {24 * MEBIBYTE}: the host has to grow"):
        await _resize(pod, "/run/disk", 24 * MEBIBYTE)
    disk.grow(24 * MEBIBYTE)

    if "CAP_SYS_RESOURCE" not in linux.missing_capabilities():
        await _resize(pod, "/run/disk", 24 * MEBIBYTE)
        assert (await _usage(pod, "/run/disk"))[csi.VolumeUsage.BYTES].total > 2 * before
    else:  # root of a machine that keeps this right from it: the program's own words arrive
        with pytest.raises(StatusError, match=r"cannot resize /run/disk: .*\n.*Permission denied to resize"):
            await _resize(pod, "/run/disk", 24 * MEBIBYTE)


async def test_what_cannot_be_resized_says_so(pod: Pod) -> None:
    with pytest.raises(StatusError, match="no volume is mounted at /run/nothing") as refusal:
        await _resize(pod, "/run/nothing", 1)
    assert refusal.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(StatusError, match="cannot resize tmpfs at /run") as refusal:
        await _resize(pod, "/run", 1)
    assert refusal.value.code is Code.UNIMPLEMENTED
