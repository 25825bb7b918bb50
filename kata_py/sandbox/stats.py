"""What a container uses, from the agent's form into the messages that managers read.

A host with cgroup v1 gets v1's message, one with v2 alone gets v2's, as Kata does. CRI-O takes the
sub-messages for granted, so all of them are there even when the agent told nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import Message

from kata_protos import agent_pb2, cgroups_v1_pb2, cgroups_v2_pb2

_UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


def host_is_unified() -> bool:
    """Whether the host has cgroup v2 alone."""
    return _UNIFIED.exists()


def metrics_v1(response: agent_pb2.StatsContainerResponse) -> cgroups_v1_pb2.Metrics:
    """The message of cgroup v1."""
    cgroup = response.cgroup_stats
    cpu, memory = cgroup.cpu_stats, cgroup.memory_stats
    usage, throttling = cpu.cpu_usage, cpu.throttling_data
    numbers = _numbers(cgroups_v1_pb2.MemoryStat)
    metrics = cgroups_v1_pb2.Metrics(
        pids=cgroups_v1_pb2.PidsStat(current=cgroup.pids_stats.current, limit=cgroup.pids_stats.limit),
        cpu=cgroups_v1_pb2.CPUStat(
            usage=cgroups_v1_pb2.CPUUsage(
                total=usage.total_usage,
                kernel=usage.usage_in_kernelmode,
                user=usage.usage_in_usermode,
                per_cpu=usage.percpu_usage,
            ),
            throttling=cgroups_v1_pb2.Throttle(
                periods=throttling.periods,
                throttled_periods=throttling.throttled_periods,
                throttled_time=throttling.throttled_time,
            ),
        ),
        memory=cgroups_v1_pb2.MemoryStat(
            usage=_entry(memory.usage),
            swap=_entry(memory.swap_usage),
            kernel=_entry(memory.kernel_usage),
            kernel_tcp=cgroups_v1_pb2.MemoryEntry(),
        ),
        blkio=cgroups_v1_pb2.BlkIOStat(),
        cgroup_stats=cgroups_v1_pb2.CgroupStats(),
        memory_oom_control=cgroups_v1_pb2.MemoryOomControl(),
    )
    for key, value in memory.stats.items():
        name = _V1_NAMES.get(key, key)
        for field in {name, f"total_{name}"} & numbers:  # containerd reckons a working set from a total
            setattr(metrics.memory, field, value)
    metrics.memory.cache = memory.cache or metrics.memory.cache
    for descriptor, entries in cgroup.blkio_stats.ListFields():
        target = getattr(metrics.blkio, descriptor.name)
        for entry in entries:
            target.add(op=entry.op, major=entry.major, minor=entry.minor, value=entry.value)
    for size, pages in cgroup.hugetlb_stats.items():
        metrics.hugetlb.add(usage=pages.usage, max=pages.max_usage, failcnt=pages.failcnt, pagesize=size)
    for network in response.network_stats:
        metrics.network.add(**_network(network))
    return metrics


def metrics_v2(response: agent_pb2.StatsContainerResponse) -> cgroups_v2_pb2.Metrics:
    """The message of cgroup v2. The agent's times are nanoseconds, this message's microseconds."""
    cgroup = response.cgroup_stats
    cpu, memory = cgroup.cpu_stats, cgroup.memory_stats
    usage, throttling = cpu.cpu_usage, cpu.throttling_data
    numbers = _numbers(cgroups_v2_pb2.MemoryStat)
    metrics = cgroups_v2_pb2.Metrics(
        pids=cgroups_v2_pb2.PidsStat(current=cgroup.pids_stats.current, limit=cgroup.pids_stats.limit),
        cpu=cgroups_v2_pb2.CPUStat(
            usage_usec=usage.total_usage // 1000,
            user_usec=usage.usage_in_usermode // 1000,
            system_usec=usage.usage_in_kernelmode // 1000,
            nr_periods=throttling.periods,
            nr_throttled=throttling.throttled_periods,
            throttled_usec=throttling.throttled_time // 1000,
        ),
        memory=cgroups_v2_pb2.MemoryStat(
            usage=memory.usage.usage,
            usage_limit=memory.usage.limit,
            max_usage=memory.usage.max_usage,
            swap_usage=memory.swap_usage.usage,
            swap_limit=memory.swap_usage.limit,
        ),
        io=cgroups_v2_pb2.IOStat(usage=_io(cgroup.blkio_stats)),
        memory_events=cgroups_v2_pb2.MemoryEvents(),
    )
    for key, value in memory.stats.items():
        if key in numbers:
            setattr(metrics.memory, key, value)
    for size, pages in cgroup.hugetlb_stats.items():
        metrics.hugetlb.add(current=pages.usage, max=pages.max_usage, pagesize=size, failcnt=pages.failcnt)
    for network in response.network_stats:
        metrics.network.add(**_network(network))
    return metrics


# A guest has cgroup v2; these of its memory.stat keys mean what v1 calls otherwise.
_V1_NAMES = {
    "anon": "rss", "file": "cache", "file_mapped": "mapped_file", "file_dirty": "dirty",
    "file_writeback": "writeback", "anon_thp": "rss_huge", "pgfault": "pg_fault", "pgmajfault": "pg_maj_fault",
}  # fmt: skip

# Kata's agent says read and write for io.stat's rbytes and wbytes.
_IO_FIELDS = {
    "read": "rbytes", "write": "wbytes", "rbytes": "rbytes", "wbytes": "wbytes", "rios": "rios", "wios": "wios",
}  # fmt: skip


def _numbers(message: type[Message]) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields if field.message_type is None}


def _entry(data: agent_pb2.MemoryData) -> cgroups_v1_pb2.MemoryEntry:
    return cgroups_v1_pb2.MemoryEntry(
        limit=data.limit, usage=data.usage, max=data.max_usage, failcnt=data.failcnt
    )  # fmt: skip


def _io(stats: agent_pb2.BlkioStats) -> list[cgroups_v2_pb2.IOEntry]:
    """The agent lists one number per entry; here one entry has all of a disk's."""
    disks: dict[tuple[int, int], cgroups_v2_pb2.IOEntry] = {}
    for entry in stats.io_service_bytes_recursive:
        name = _IO_FIELDS.get(entry.op.lower())
        if name is not None:
            place = entry.major, entry.minor
            disk = disks.setdefault(place, cgroups_v2_pb2.IOEntry(major=entry.major, minor=entry.minor))
            setattr(disk, name, entry.value)
    return list(disks.values())


def _network(stats: agent_pb2.NetworkStats) -> Mapping[str, str | int]:
    return {field.name: value for field, value in stats.ListFields()}
