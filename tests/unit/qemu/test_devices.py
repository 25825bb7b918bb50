"""What the configuration makes of memory, disks and small devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kata_py.config.hypervisor import BlockConfig
from kata_qemu.bus import CcwPlace, PciPlace
from kata_qemu.devices.balloon import Balloon
from kata_qemu.devices.block import Disk, io_uring_obstacle
from kata_qemu.devices.entropy import RandomNumbers
from kata_qemu.devices.memory import Ram, free_huge_pages

MEMORY = "memory-backend-memfd,id=ram,size=67108864,share=on"


@pytest.mark.parametrize(
    ("ram", "option"),
    [
        (Ram(64), MEMORY),
        (Ram(64, preallocated=True), f"{MEMORY},prealloc=on"),
        (Ram(64, huge_pages=True), f"{MEMORY},hugetlb=on,prealloc=on"),
    ],
)
def test_memory_is_taken_at_once_if_asked_for_and_always_from_huge_pages(ram: Ram, option: str) -> None:
    [part] = ram.parts()
    assert part.option() == ("-object", option)


def test_huge_pages_that_are_promised_to_others_are_not_free(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal:  24000000 kB\nHugePages_Total:  50\nHugePages_Free:  40\nHugePages_Rsvd:  8\n"
        "Hugepagesize:  2048 kB\n"
    )
    assert free_huge_pages(tmp_path) == 64


@pytest.mark.parametrize(
    ("tuning", "node", "device"),
    [
        (None, "", ""),
        ({}, ",file.aio=threads", ""),
        ({"block_device_aio": "io_uring"}, ",file.aio=io_uring", ""),
        ({"block_device_aio": "native"}, ",cache.direct=on,cache.no-flush=off,file.aio=native", ""),
        (
            {"block_device_cache_set": True, "block_device_cache_noflush": True},
            ",cache.direct=off,cache.no-flush=on,file.aio=threads",
            "",
        ),
        (
            {"block_device_logical_sector_size": 4096},
            ",file.aio=threads",
            ",logical_block_size=4096,physical_block_size=4096",
        ),
        (
            {"block_device_logical_sector_size": 512, "block_device_physical_sector_size": 4096},
            ",file.aio=threads",
            ",logical_block_size=512,physical_block_size=4096",
        ),
    ],
)
def test_a_disk_is_read_and_written_as_the_configuration_says(
    tuning: dict[str, Any] | None, node: str, device: str
) -> None:
    config = None if tuning is None else BlockConfig(**tuning)
    parts = Disk("x", Path("/d"), PciPlace(3), tuning=config).parts()
    place, file = ",discard=unmap", ",file.driver=file,file.filename=/d"
    aio = node.find(",file.aio")
    cache, aio_text = (node[:aio], node[aio:]) if aio >= 0 else ("", "")
    assert [part.option()[1] for part in parts] == [
        f"raw,node-name=disk-x-node{place}{cache}{file}{aio_text}",
        f"virtio-blk-pci,id=disk-x,bus=pcie.0,addr=0x3,drive=disk-x-node,serial=x{device}",
    ]


@pytest.mark.parametrize(("text", "obstacle"), [("2\n", True), ("1\n", False), ("0\n", False), (None, False)])
def test_io_uring_is_forbidden_where_the_kernel_says_so(tmp_path: Path, text: str | None, obstacle: bool) -> None:
    setting = tmp_path / "proc/sys/kernel/io_uring_disabled"
    if text is not None:
        setting.parent.mkdir(parents=True)
        setting.write_text(text)
    assert io_uring_obstacle(tmp_path) == (f"{setting} is 2" if obstacle else "")


def test_random_numbers_come_from_a_device_of_the_host() -> None:
    assert [part.option()[1] for part in RandomNumbers(Path("/dev/hwrng"), PciPlace(4)).parts()] == [
        "rng-random,id=entropy,filename=/dev/hwrng",
        "virtio-rng-pci,id=rng,bus=pcie.0,addr=0x4,rng=entropy",
    ]


def test_freed_memory_is_reported_through_a_balloon() -> None:
    [part] = Balloon(CcwPlace(5)).parts()
    assert part.option()[1] == "virtio-balloon-ccw,id=balloon,devno=fe.0.0005,deflate-on-oom=on,free-page-reporting=on"
