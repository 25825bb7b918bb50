from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kata_agent.cgroup import resources
from kata_agent.cgroup.hierarchy import CgroupV1, CgroupV2
from kata_agent.errors import AgentError, InvalidArgument

MIB = 1 << 20


class Recorded:
    """A directory in which every write is kept, in order; a stand-in for what only a kernel has."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> None:
        self.directory = directory
        self.writes: list[tuple[str, str]] = []
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        real = Path.write_text

        def write(path: Path, text: str, *arguments: Any) -> int:
            path.stat()  # the kernel makes no files
            self.writes.append((path.name, text))
            return real(path, text, *arguments)

        monkeypatch.setattr(Path, "write_text", write)


V2 = {
    "memory.max": "max\n", "memory.current": "0\n", "memory.low": "0\n", "memory.swap.max": "max\n",
    "cpu.weight": "100\n", "cpu.max": "20000 50000\n", "cpuset.cpus": "\n", "cpuset.mems": "\n", "pids.max": "max\n",
    "io.weight": "100\n", "io.max": "", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.rsvd.max": "max\n",
}  # fmt: skip


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(tmp_path, monkeypatch, V2)


def _apply(recorded: Recorded, wanted: Any, current: Any = None) -> list[tuple[str, str]]:
    resources.apply(CgroupV2(recorded.directory), wanted, current or {})
    return recorded.writes


@pytest.mark.parametrize(
    ("wanted", "writes"),
    [
        ({"memory": {"limit": MIB, "reservation": 1024}}, [("memory.max", "1048576"), ("memory.low", "1024")]),
        ({"memory": {"limit": MIB, "swap": 3 * MIB}}, [("memory.max", "1048576"), ("memory.swap.max", "2097152")]),
        ({"memory": {"limit": MIB, "swap": MIB}}, [("memory.max", "1048576"), ("memory.swap.max", "0")]),
        ({"memory": {"limit": MIB, "swap": -1}}, [("memory.max", "1048576"), ("memory.swap.max", "max")]),
        ({"memory": {"limit": -1}}, [("memory.max", "max"), ("memory.swap.max", "max")]),
        ({"cpu": {"shares": 2}}, [("cpu.weight", "1")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "39")]),
        ({"cpu": {"shares": 262144}}, [("cpu.weight", "10000")]),
        ({"cpu": {"quota": 10000, "period": 100000}}, [("cpu.max", "10000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max")]),
        ({"cpu": {"period": 100000}}, [("cpu.max", "20000 100000")]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 7}}, [("pids.max", "7")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
            [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
        ),
        ({"blockIO": {"weight": 10}}, [("io.weight", "1")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "10000")]),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "weight": 500}]}}, [("io.weight", "8:1 4950")]),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }
            },
            [
                ("io.max", "8:0 rbps=1"),
                ("io.max", "8:0 wbps=2"),
                ("io.max", "8:0 riops=3"),
                ("io.max", "8:0 wiops=max"),
            ],
        ),
        ({"devices": [{"allow": True}], "network": {"classID": 1}}, []),
    ],
)
def test_each_limit_has_its_file_and_form_in_v2(v2: Recorded, wanted: Any, writes: list[tuple[str, str]]) -> None:
    assert _apply(v2, wanted) == writes


def test_a_scheduler_with_weights_of_its_own_gets_them_as_they_are(v2: Recorded) -> None:
    (v2.directory / "io.bfq.weight").touch()

    assert _apply(v2, {"blockIO": {"weight": 500}}) == [("io.bfq.weight", "500")]


def test_swap_counts_from_the_limit_that_the_spec_has(v2: Recorded) -> None:
    assert _apply(v2, {"memory": {"swap": 3 * MIB}}, {"memory": {"limit": MIB}}) == [("memory.swap.max", "2097152")]


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"memory": {"kernel": 1}}, r"resources\.memory\.kernel "),
        ({"memory": {"kernelTCP": 1}}, r"resources\.memory\.kernelTCP "),
        ({"memory": {"swappiness": 60}}, r"resources\.memory\.swappiness "),
        ({"memory": {"disableOOMKiller": True}}, r"resources\.memory\.disableOOMKiller "),
        ({"cpu": {"realtimeRuntime": 1}}, r"resources\.cpu\.realtimeRuntime "),
        ({"blockIO": {"leafWeight": 10}}, r"resources\.blockIO\.leafWeight "),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 1}]}}, "leafWeight"),
        ({"memory": {"swap": MIB}}, r"memory\.limit is not set"),
        ({"memory": {"limit": MIB, "swap": 1}}, r"memory\.limit alone is 1048576"),
    ],
)
def test_what_v2_cannot_have_is_refused_by_name_before_anything_is_set(v2: Recorded, wanted: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        _apply(v2, {"pids": {"limit": 3}, **wanted})

    assert v2.writes == []


def test_memory_is_freed_before_the_limit_is_lowered(v2: Recorded) -> None:
    (v2.directory / "memory.current").write_text("5000")
    (v2.directory / "memory.reclaim").touch()
    v2.writes.clear()

    with pytest.raises(AgentError, match=r"cannot set memory\.limit to 4000: the container uses 5000 bytes"):
        _apply(v2, {"memory": {"limit": 4000}})

    assert v2.writes == [("memory.reclaim", "1000")]


def test_a_limit_that_the_kernel_lacks_is_named(v2: Recorded) -> None:
    with pytest.raises(AgentError, match=r"cannot set hugepageLimits\[1GB\]: this kernel has no hugetlb\.1GB\.max"):
        _apply(v2, {"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]})


V1 = {
    "memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(128 * MIB),
    "memory.soft_limit_in_bytes": "", "memory.kmem.limit_in_bytes": "", "memory.kmem.tcp.limit_in_bytes": "",
    "memory.swappiness": "", "memory.oom_control": "", "cpu.shares": "", "cpu.cfs_period_us": "",
    "cpu.cfs_quota_us": "", "cpu.rt_period_us": "", "cpu.rt_runtime_us": "", "cpuset.cpus": "", "cpuset.mems": "",
    "pids.max": "", "hugetlb.2MB.limit_in_bytes": "", "blkio.weight": "", "blkio.weight_device": "",
    "blkio.leaf_weight": "", "blkio.leaf_weight_device": "", "blkio.throttle.read_bps_device": "",
    "blkio.throttle.write_iops_device": "",
}  # fmt: skip
MEMORY, MEMSW = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


@pytest.mark.parametrize(
    ("wanted", "writes"),
    [
        ({"memory": {"limit": 256 * MIB, "swap": 512 * MIB}}, [(MEMSW, str(512 * MIB)), (MEMORY, str(256 * MIB))]),
        ({"memory": {"limit": 16 * MIB, "swap": 32 * MIB}}, [(MEMORY, str(16 * MIB)), (MEMSW, str(32 * MIB))]),
        ({"memory": {"limit": 16 * MIB, "swap": -1}}, [(MEMSW, "-1"), (MEMORY, str(16 * MIB))]),
        ({"memory": {"limit": -1}}, [(MEMSW, "-1"), (MEMORY, "-1")]),
        (
            {"memory": {"reservation": 1, "kernel": 2, "kernelTCP": 3, "swappiness": 4, "disableOOMKiller": True}},
            [
                ("memory.soft_limit_in_bytes", "1"), ("memory.kmem.limit_in_bytes", "2"),
                ("memory.kmem.tcp.limit_in_bytes", "3"), ("memory.swappiness", "4"), ("memory.oom_control", "1"),
            ],
        ),
        (
            {"cpu": {"shares": 5, "quota": -1, "period": 6, "realtimePeriod": 7, "realtimeRuntime": 8, "cpus": "0"}},
            [
                ("cpu.shares", "5"), ("cpu.cfs_period_us", "6"), ("cpu.cfs_quota_us", "-1"), ("cpu.rt_period_us", "7"),
                ("cpu.rt_runtime_us", "8"), ("cpuset.cpus", "0"),
            ],
        ),
        (
            {"pids": {"limit": -1}, "hugepageLimits": [{"pageSize": "2MB", "limit": 9}]},
            [("pids.max", "max"), ("hugetlb.2MB.limit_in_bytes", "9")],
        ),
        (
            {
                "blockIO": {
                    "weight": 10,
                    "leafWeight": 11,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 12, "leafWeight": 13}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 14}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 15}],
                }
            },
            [
                ("blkio.weight", "10"), ("blkio.leaf_weight", "11"), ("blkio.weight_device", "8:0 12"),
                ("blkio.leaf_weight_device", "8:0 13"), ("blkio.throttle.read_bps_device", "8:0 14"),
                ("blkio.throttle.write_iops_device", "8:0 15"),
            ],
        ),
    ],
)  # fmt: skip
def test_each_limit_has_its_file_and_turn_in_v1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Any, writes: list[tuple[str, str]]
) -> None:
    recorded = Recorded(tmp_path, monkeypatch, V1)
    names = ("memory", "cpu", "cpuset", "pids", "hugetlb", "blkio")

    resources.apply(CgroupV1(dict.fromkeys(names, tmp_path)), wanted, {})

    assert recorded.writes == writes


def test_an_update_keeps_what_it_does_not_name() -> None:
    before: Any = {"memory": {"limit": 1, "swap": 2}, "pids": {"limit": 3}, "devices": [{"allow": False}]}

    after = resources.merged(before, {"memory": {"limit": 4}, "devices": [{"allow": True}], "cpu": {"shares": 5}})

    assert after == {
        "memory": {"limit": 4, "swap": 2}, "pids": {"limit": 3}, "devices": [{"allow": True}], "cpu": {"shares": 5},
    }  # fmt: skip
    assert before["memory"] == {"limit": 1, "swap": 2}


def test_processors_that_came_are_given_from_the_top_down_in_v1(tmp_path: Path) -> None:
    top = tmp_path / "cpuset"
    container = top / "pod" / "ctr"
    container.mkdir(parents=True)
    for directory, cpus in ((top, "0-3"), (top / "pod", "0"), (container, "0")):
        (directory / "cpuset.cpus").write_text(f"{cpus}\n")

    resources.renew_cpus(CgroupV1({"cpuset": container}), "1-2", root=tmp_path)

    assert (top / "pod" / "cpuset.cpus").read_text() == "0-3"
    assert (container / "cpuset.cpus").read_text() == "1-2"
