from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_agent import hotplug, swap
from kata_agent.errors import AgentError, InvalidArgument


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root complex with a disk in slot 3, and one behind a bridge in slot 2, in its slot 10."""
    complex_ = tmp_path / "pci0000:00"
    (complex_ / "0000:00:03.0/virtio1/block/vda").mkdir(parents=True)
    (complex_ / "0000:00:02.0/pci_bus/0000:01").mkdir(parents=True)
    (complex_ / "0000:00:02.0/0000:01:0a.0/virtio4/block/vdb").mkdir(parents=True)
    (complex_ / "0000:00:04.0/virtio2/net/eth0").mkdir(parents=True)
    return complex_


@pytest.mark.parametrize(("slots", "device"), [([3], "/dev/vda"), ([2, 10], "/dev/vdb")])
async def test_a_disk_is_found_by_its_slots(root: Path, slots: list[int], device: str) -> None:
    assert await swap.disk(slots, root) == device


async def test_a_disk_that_comes_later_is_waited_for(root: Path) -> None:
    finding = asyncio.create_task(swap.disk([2, 11], root))
    asyncio.get_running_loop().call_later(
        0.1, lambda: (root / "0000:00:02.0/0000:01:0b.0/virtio9/block/vdz").mkdir(parents=True)
    )

    assert await finding == "/dev/vdz"


@pytest.mark.parametrize("slots", [[4], [5], [3, 1], [2, 31]])
async def test_a_disk_that_does_not_come_is_named_by_its_path(root: Path, slots: list[int]) -> None:
    path = "/".join(f"{slot:02x}" for slot in slots)

    with pytest.raises(AgentError, match=f"no disk appeared at PCI path {path} within 0.1 s"):
        await swap.disk(slots, root, timeout=0.1)


@pytest.mark.parametrize("slots", [[], [32], [1, 4000]])
async def test_what_pci_has_not_is_no_path(root: Path, slots: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="not a PCI path"):
        await swap.disk(slots, root)


def test_memory_is_probed_by_its_address_in_upper_case(tmp_path: Path) -> None:
    (tmp_path / "probe").touch()

    hotplug.probe_memory([0x1ABCDEF000], tmp_path)

    assert (tmp_path / "probe").read_text() == "0x1ABCDEF000"
