from __future__ import annotations

import pytest
from google.protobuf.message import Message

from kata_protos import agent_pb2 as agent
from kata_protos import cgroups_v1_pb2, cgroups_v2_pb2
from kata_py.sandbox.stats import metrics_v1, metrics_v2


def response() -> agent.StatsContainerResponse:
    return agent.StatsContainerResponse(
        cgroup_stats=agent.CgroupStats(
            cpu_stats=agent.CpuStats(
                cpu_usage=agent.CpuUsage(total_usage=9000, usage_in_kernelmode=2000, usage_in_usermode=7000),
                throttling_data=agent.ThrottlingData(periods=1, throttled_periods=2, throttled_time=3000),
            ),
            memory_stats=agent.MemoryStats(
                usage=agent.MemoryData(usage=100, max_usage=200, failcnt=1, limit=300),
                swap_usage=agent.MemoryData(usage=10, limit=20),
                stats={"anon": 40, "file": 50, "inactive_file": 60, "pgfault": 70, "nobody knows this": 1},
            ),
            pids_stats=agent.PidsStats(current=4, limit=5),
            blkio_stats=agent.BlkioStats(
                io_service_bytes_recursive=[
                    agent.BlkioStatsEntry(major=8, minor=0, op="read", value=11),
                    agent.BlkioStatsEntry(major=8, minor=0, op="write", value=12),
                    agent.BlkioStatsEntry(major=8, minor=0, op="rios", value=13),
                    agent.BlkioStatsEntry(major=8, minor=16, op="wios", value=14),
                    agent.BlkioStatsEntry(major=8, minor=0, op="dbytes", value=15),
                ]
            ),
            hugetlb_stats={"2MB": agent.HugetlbStats(usage=1, max_usage=2, failcnt=3)},
        ),
        network_stats=[agent.NetworkStats(name="eth0", rx_bytes=1, tx_dropped=8)],
    )


def test_v1_has_the_agents_numbers() -> None:
    metrics = metrics_v1(response())
    assert (metrics.cpu.usage.total, metrics.cpu.usage.kernel, metrics.cpu.usage.user) == (9000, 2000, 7000)
    assert metrics.cpu.throttling.throttled_time == 3000
    memory = metrics.memory
    assert (memory.usage.usage, memory.usage.max, memory.usage.failcnt, memory.usage.limit) == (100, 200, 1, 300)
    assert (memory.swap.usage, memory.swap.limit) == (10, 20)
    assert (memory.rss, memory.total_rss, memory.cache, memory.total_cache) == (40, 40, 50, 50)
    assert (memory.inactive_file, memory.total_inactive_file, memory.pg_fault) == (60, 60, 70)
    assert (metrics.pids.current, metrics.pids.limit) == (4, 5)
    assert [(e.op, e.value) for e in metrics.blkio.io_service_bytes_recursive[:2]] == [("read", 11), ("write", 12)]
    assert [(h.pagesize, h.usage, h.max, h.failcnt) for h in metrics.hugetlb] == [("2MB", 1, 2, 3)]
    assert [(n.name, n.rx_bytes, n.tx_dropped) for n in metrics.network] == [("eth0", 1, 8)]


def test_v2_has_the_agents_numbers_with_times_in_microseconds() -> None:
    metrics = metrics_v2(response())
    assert (metrics.cpu.usage_usec, metrics.cpu.user_usec, metrics.cpu.system_usec) == (9, 7, 2)
    assert (metrics.cpu.nr_periods, metrics.cpu.nr_throttled, metrics.cpu.throttled_usec) == (1, 2, 3)
    memory = metrics.memory
    assert (memory.usage, memory.usage_limit, memory.swap_usage, memory.swap_limit) == (100, 300, 10, 20)
    assert (memory.anon, memory.file, memory.inactive_file, memory.pgfault) == (40, 50, 60, 70)
    disks = [(d.major, d.minor, d.rbytes, d.wbytes, d.rios, d.wios) for d in metrics.io.usage]
    assert disks == [(8, 0, 11, 12, 13, 0), (8, 16, 0, 0, 0, 14)]
    assert [(h.pagesize, h.current, h.max) for h in metrics.hugetlb] == [("2MB", 1, 2)]
    assert [(n.name, n.rx_bytes) for n in metrics.network] == [("eth0", 1)]


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        (metrics_v1(agent.StatsContainerResponse()), ["memory", "cpu", "pids", "memory_oom_control"]),
        (metrics_v1(agent.StatsContainerResponse()).memory, ["usage", "swap", "kernel", "kernel_tcp"]),
        (metrics_v1(agent.StatsContainerResponse()).cpu, ["usage", "throttling"]),
        (metrics_v2(agent.StatsContainerResponse()), ["cpu", "memory", "pids", "memory_events"]),
    ],
)
def test_the_sub_messages_that_managers_take_for_granted_are_there_when_the_agent_told_nothing(
    metrics: Message, names: list[str]
) -> None:
    again = type(metrics).FromString(metrics.SerializeToString())
    assert all(again.HasField(name) for name in names)


def test_the_types_are_those_that_managers_know() -> None:
    assert cgroups_v1_pb2.Metrics.DESCRIPTOR.full_name == "io.containerd.cgroups.v1.Metrics"
    assert cgroups_v2_pb2.Metrics.DESCRIPTOR.full_name == "io.containerd.cgroups.v2.Metrics"
