from __future__ import annotations

from pathlib import Path

import pytest

from kata_agent import hotplug
from kata_agent.errors import AgentError


@pytest.fixture
def cpus(tmp_path: Path) -> Path:
    """Three processors: the first without a switch, the second online, the third not; and what is none."""
    for number in range(3):
        (tmp_path / f"cpu{number}").mkdir()
    (tmp_path / "cpu1" / "online").write_text("1\n")
    (tmp_path / "cpu2" / "online").write_text("0\n")
    (tmp_path / "cpufreq").mkdir()
    return tmp_path


async def test_processors_are_put_online(cpus: Path) -> None:
    await hotplug.online_cpus(3, cpus)

    assert (cpus / "cpu2" / "online").read_text() == "1"


async def test_processors_that_do_not_come_are_counted(cpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotplug, "_PAUSE", 0.0)

    with pytest.raises(AgentError, match="only 3 of 4 processors are online"):
        await hotplug.online_cpus(4, cpus)


def test_offline_memory_is_put_online(tmp_path: Path) -> None:
    for number, state in enumerate(("online", "offline", "going-offline")):
        (tmp_path / f"memory{number}").mkdir()
        (tmp_path / f"memory{number}" / "state").write_text(f"{state}\n")

    hotplug.online_memory(tmp_path)

    states = [(tmp_path / f"memory{number}" / "state").read_text().strip() for number in range(3)]
    assert states == ["online", "online", "going-offline"]


def test_the_block_size_is_hexadecimal(tmp_path: Path) -> None:
    (tmp_path / "block_size_bytes").write_text("8000000\n")

    assert hotplug.memory_block_size(tmp_path) == 128 << 20


def test_without_hot_plugging_the_block_size_is_zero(tmp_path: Path) -> None:
    assert hotplug.memory_block_size(tmp_path) == 0


def test_memory_is_probed_by_its_address_in_upper_case(tmp_path: Path) -> None:
    (tmp_path / "probe").touch()
    hotplug.probe_memory([0x1ABCDEF000], tmp_path)
    assert (tmp_path / "probe").read_text() == "0x1ABCDEF000"
