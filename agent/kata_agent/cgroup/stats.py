"""A cgroup's statistics in the agent's form, from either generation.

What a kernel does not offer stays zero. Times are nanoseconds, sizes bytes; no limit is 2^64-1.
Source: cgroup-v1 and cgroup-v2 of the kernel's admin guide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kata_agent.cgroup.hierarchy import Cgroup, CgroupV1, CgroupV2
from kata_protos.agent_pb2 import (
    BlkioStats,
    BlkioStatsEntry,
    CgroupStats,
    CpuStats,
    CpuUsage,
    HugetlbStats,
    MemoryData,
    MemoryStats,
    NetworkStats,
    PidsStats,
    ThrottlingData,
)

_UNLIMITED = (1 << 64) - 1

# The lists of BlkioStats by their v1 files: those of a proportional scheduler (cfq, bfq), or else those of the
# throttling layer, which every kernel has.
_BLKIO_FILES = {
    "io_service_bytes_recursive": tuple(f"blkio.{by}io_service_bytes_recursive" for by in ("", "bfq.", "throttle.")),
    "io_serviced_recursive": tuple(f"blkio.{by}io_serviced_recursive" for by in ("", "bfq.", "throttle.")),
    "io_queued_recursive": ("blkio.io_queued_recursive",),
    "io_service_time_recursive": ("blkio.io_service_time_recursive",),
    "io_wait_time_recursive": ("blkio.io_wait_time_recursive",),
    "io_merged_recursive": ("blkio.io_merged_recursive",),
    "io_time_recursive": ("blkio.time_recursive",),
    "sectors_recursive": ("blkio.sectors_recursive",),
}

_IO_STAT_OPS = {"rbytes": "read", "wbytes": "write"}  # the other keys keep their names
_IO_STAT_OPERATIONS = {"rios": "read", "wios": "write"}  # those that v1 has in a list of its own

_LOOPBACK = "lo"


def read(cgroup: Cgroup) -> CgroupStats:
    """Read all statistics. The files are read one after another, so the figures are not of one instant."""
    match cgroup:
        case CgroupV1(directories):
            return _v1({name: _Files(path) for name, path in directories.items()})
        case CgroupV2(directory):
            return _v2(_Files(directory))


class _Files:
    """The files of one cgroup directory, read as what they hold."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def text(self, name: str) -> str:
        """The file's text; empty if there is none, as for a controller that is off."""
        if self._directory is None:
            return ""
        try:
            return (self._directory / name).read_text()
        except OSError:
            return ""

    def number(self, name: str, unlimited: int = _UNLIMITED) -> int:
        """A file that holds a number, or `max`."""
        text = self.text(name).strip()
        return unlimited if text == "max" else int(text or 0)

    def table(self, name: str) -> dict[str, int]:
        """A file of lines `key value`."""
        pairs = (line.split() for line in self.text(name).splitlines())
        return {key: int(value) for key, value in pairs}

    def sizes(self, prefix: str, suffix: str) -> list[str]:
        """What stands between prefix and suffix in the names of this directory's files."""
        if self._directory is None or not self._directory.is_dir():
            return []
        names = [entry.name for entry in self._directory.iterdir()]
        return [
            name.removeprefix(prefix).removesuffix(suffix)
            for name in names
            if name.startswith(prefix) and name.endswith(suffix) and ".rsvd" not in name
        ]


_NOTHING = _Files(None)


def _v2(files: _Files) -> CgroupStats:
    cpu = files.table("cpu.stat")
    memory = files.table("memory.stat")
    io = files.text("io.stat")
    return CgroupStats(
        cpu_stats=CpuStats(
            cpu_usage=CpuUsage(
                total_usage=cpu.get("usage_usec", 0) * 1000,
                usage_in_kernelmode=cpu.get("system_usec", 0) * 1000,
                usage_in_usermode=cpu.get("user_usec", 0) * 1000,
            ),
            throttling_data=_throttling(cpu, cpu.get("throttled_usec", 0) * 1000),
        ),
        memory_stats=MemoryStats(
            cache=memory.get("file", 0),
            usage=MemoryData(
                usage=files.number("memory.current"),
                max_usage=files.number("memory.peak"),  # Linux ≥ 5.19
                failcnt=files.table("memory.events").get("max", 0),
                limit=files.number("memory.max"),
            ),
            swap_usage=MemoryData(
                usage=files.number("memory.swap.current"),
                max_usage=files.number("memory.swap.peak"),
                failcnt=files.table("memory.swap.events").get("fail", 0),
                limit=files.number("memory.swap.max"),
            ),
            kernel_usage=MemoryData(usage=memory.get("kernel", 0), limit=_UNLIMITED),
            use_hierarchy=True,
            stats=memory,
        ),
        pids_stats=PidsStats(current=files.number("pids.current"), limit=files.number("pids.max", unlimited=0)),
        blkio_stats=BlkioStats(
            io_service_bytes_recursive=_io_stat(io, lambda key: _IO_STAT_OPS.get(key, key)),
            io_serviced_recursive=_io_stat(io, _IO_STAT_OPERATIONS.get),
        ),
        hugetlb_stats={
            size: HugetlbStats(
                usage=files.number(f"hugetlb.{size}.current"),
                max_usage=files.number(f"hugetlb.{size}.max"),
                failcnt=files.table(f"hugetlb.{size}.events").get("max", 0),
            )
            for size in files.sizes("hugetlb.", ".current")
        },
    )


def _v1(controllers: Mapping[str, _Files]) -> CgroupStats:
    cpuacct, memory = controllers.get("cpuacct", _NOTHING), controllers.get("memory", _NOTHING)
    pids, hugetlb = controllers.get("pids", _NOTHING), controllers.get("hugetlb", _NOTHING)
    blkio = controllers.get("blkio", _NOTHING)
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    ticks = cpuacct.table("cpuacct.stat")
    throttling = controllers.get("cpu", _NOTHING).table("cpu.stat")
    stats = memory.table("memory.stat")
    return CgroupStats(
        cpu_stats=CpuStats(
            cpu_usage=CpuUsage(
                total_usage=cpuacct.number("cpuacct.usage"),
                percpu_usage=[int(usage) for usage in cpuacct.text("cpuacct.usage_percpu").split()],
                usage_in_kernelmode=ticks.get("system", 0) * tick,
                usage_in_usermode=ticks.get("user", 0) * tick,
            ),
            throttling_data=_throttling(throttling, throttling.get("throttled_time", 0)),
        ),
        memory_stats=MemoryStats(
            cache=stats.get("cache", 0),
            usage=_memory_v1(memory, "memory"),
            swap_usage=_memory_v1(memory, "memory.memsw"),
            kernel_usage=_memory_v1(memory, "memory.kmem"),
            use_hierarchy=memory.number("memory.use_hierarchy") == 1,
            stats=stats,
        ),
        pids_stats=PidsStats(current=pids.number("pids.current"), limit=pids.number("pids.max", unlimited=0)),
        blkio_stats=BlkioStats(**{field: _blkio(blkio, names) for field, names in _BLKIO_FILES.items()}),
        hugetlb_stats={
            size: HugetlbStats(
                usage=hugetlb.number(f"hugetlb.{size}.usage_in_bytes"),
                max_usage=hugetlb.number(f"hugetlb.{size}.max_usage_in_bytes"),
                failcnt=hugetlb.number(f"hugetlb.{size}.failcnt"),
            )
            for size in hugetlb.sizes("hugetlb.", ".usage_in_bytes")
        },
    )


def _throttling(cpu: Mapping[str, int], nanoseconds: int) -> ThrottlingData:
    return ThrottlingData(
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=nanoseconds,
    )


def _memory_v1(files: _Files, prefix: str) -> MemoryData:
    return MemoryData(
        usage=files.number(f"{prefix}.usage_in_bytes"),
        max_usage=files.number(f"{prefix}.max_usage_in_bytes"),
        failcnt=files.number(f"{prefix}.failcnt"),
        limit=files.number(f"{prefix}.limit_in_bytes"),
    )


def _blkio(files: _Files, names: tuple[str, ...]) -> list[BlkioStatsEntry]:
    """The first file that holds anything: lines `8:0 Read 4096` or `8:0 4096`, and a total."""
    text = next(filter(None, map(files.text, names)), "")
    entries = []
    for line in text.splitlines():
        device, *operation, value = line.split()
        major, colon, minor = device.partition(":")
        if colon:
            op = operation[0] if operation else ""
            entries.append(BlkioStatsEntry(major=int(major), minor=int(minor), op=op, value=int(value)))
    return entries


def _io_stat(text: str, operation: Callable[[str], str | None]) -> list[BlkioStatsEntry]:
    """Lines `8:0 rbytes=4096 wbytes=0 rios=1 ...`; the operation of a key, or None to leave it out."""
    entries = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if (op := operation(key)) and value.isdecimal():
                entries.append(BlkioStatsEntry(major=int(major), minor=int(minor), op=op, value=int(value)))
    return entries


def networks(table: Path = Path("/proc/self/net/dev")) -> list[NetworkStats]:
    """The counters of the network that all containers share, for each interface but the loopback. Source: proc(5)."""
    found = []
    for line in table.read_text().splitlines()[2:]:  # below its heading
        name, _, numbers = line.partition(":")
        values = [int(number) for number in numbers.split()]
        if name.strip() != _LOOPBACK:
            names = ("bytes", "packets", "errors", "dropped")
            received, sent = zip(names, values[:4], strict=True), zip(names, values[8:12], strict=True)
            counters = {f"rx_{key}": value for key, value in received} | {f"tx_{key}": value for key, value in sent}
            found.append(NetworkStats(name=name.strip(), **counters))
    return found
