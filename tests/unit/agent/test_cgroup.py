from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kata_agent.cgroup import hierarchy, stats
from kata_agent.cgroup.hierarchy import CgroupV1, CgroupV2
from kata_protos.agent_pb2 import BlkioStatsEntry, CgroupStats, NetworkStats

UNLIMITED = (1 << 64) - 1


def _write(directory: Path, files: Mapping[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


@pytest.fixture
def v2(tmp_path: Path) -> CgroupV2:
    files = {
        "cpu.stat": "usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\n",
        "memory.stat": "anon 1024\nfile 2048\nkernel 512\n",
        "memory.swap.current": "16\n",
        "memory.swap.max": "1024\n",
        "memory.swap.events": "high 0\nmax 0\nfail 1\n",
        "pids.current": "4\n",
        "pids.max": "max\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
        "hugetlb.2MB.current": "2097152\n",
        "hugetlb.2MB.max": "max\n",
        "hugetlb.2MB.events": "max 0\n",
        "hugetlb.2MB.rsvd.current": "0\n",
    }
    return CgroupV2(_write(tmp_path / "v2", files))


def test_v2_is_read_in_nanoseconds_and_bytes(v2: CgroupV2) -> None:
    read = stats.read(v2)

    cpu, memory = read.cpu_stats, read.memory_stats
    assert (cpu.cpu_usage.total_usage, cpu.cpu_usage.usage_in_usermode) == (1_000_000, 600_000)
    assert (cpu.throttling_data.periods, cpu.throttling_data.throttled_time) == (5, 7000)
    assert (memory.usage.usage, memory.usage.max_usage, memory.usage.limit) == (4096, 8192, UNLIMITED)
    assert (memory.usage.failcnt, memory.cache, memory.kernel_usage.usage) == (3, 2048, 512)
    assert (memory.swap_usage.usage, memory.swap_usage.limit, memory.swap_usage.failcnt) == (16, 1024, 1)
    assert dict(memory.stats) == {"anon": 1024, "file": 2048, "kernel": 512}
    assert (read.pids_stats.current, read.pids_stats.limit) == (4, 0)
    assert list(read.hugetlb_stats) == ["2MB"]
    operations = {entry.op: entry.value for entry in read.blkio_stats.io_service_bytes_recursive}
    assert operations == {"read": 10, "write": 20, "rios": 1, "wios": 2, "dbytes": 0, "dios": 0}
    served = {entry.op: entry.value for entry in read.blkio_stats.io_serviced_recursive}
    assert served == {"read": 1, "write": 2}


def test_interfaces_but_the_loopback_are_counted(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    heading = "Inter-| Receive | Transmit\n face | bytes packets errs drop fifo frame compressed multicast | ...\n"
    loopback = "    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n"
    table.write_text(f"{heading}{loopback}  eth0: 10 20 3 4 5 6 7 8 90 100 11 12 13 14 15 16\n")

    assert stats.networks(table) == [
        NetworkStats(
            name="eth0", rx_bytes=10, rx_packets=20, rx_errors=3, rx_dropped=4, tx_bytes=90, tx_packets=100,
            tx_errors=11, tx_dropped=12,
        )
    ]  # fmt: skip


def test_v2_without_controllers_is_zero(tmp_path: Path) -> None:
    read = stats.read(CgroupV2(_write(tmp_path / "empty", {})))

    assert read.cpu_stats.cpu_usage.total_usage == 0
    assert read.pids_stats.current == 0


def test_v1_is_read_over_its_controllers(tmp_path: Path) -> None:
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    cgroup = CgroupV1(
        {
            "cpu": _write(tmp_path / "cpu", {"cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"}),
            "cpuacct": _write(
                tmp_path / "cpuacct",
                {"cpuacct.usage": "300\n", "cpuacct.usage_percpu": "100 200 \n", "cpuacct.stat": "user 1\nsystem 2\n"},
            ),
            "memory": _write(
                tmp_path / "memory",
                {
                    "memory.usage_in_bytes": "1\n",
                    "memory.max_usage_in_bytes": "2\n",
                    "memory.failcnt": "3\n",
                    "memory.limit_in_bytes": "4\n",
                    "memory.memsw.usage_in_bytes": "5\n",
                    "memory.kmem.usage_in_bytes": "6\n",
                    "memory.use_hierarchy": "1\n",
                    "memory.stat": "cache 7\nrss 8\n",
                },
            ),
            "pids": _write(tmp_path / "pids", {"pids.current": "9\n", "pids.max": "100\n"}),
            "blkio": _write(
                tmp_path / "blkio",
                {
                    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
                    "blkio.time_recursive": "8:0 40\n",
                },
            ),
        }
    )

    read = stats.read(cgroup)

    usage = read.cpu_stats.cpu_usage
    assert (usage.total_usage, list(usage.percpu_usage)) == (300, [100, 200])
    assert (usage.usage_in_usermode, usage.usage_in_kernelmode) == (tick, 2 * tick)
    assert read.cpu_stats.throttling_data.throttled_time == 3
    memory = read.memory_stats
    assert [memory.usage.usage, memory.usage.max_usage, memory.usage.failcnt, memory.usage.limit] == [1, 2, 3, 4]
    assert (memory.swap_usage.usage, memory.kernel_usage.usage, memory.cache, memory.use_hierarchy) == (5, 6, 7, True)
    assert (read.pids_stats.current, read.pids_stats.limit) == (9, 100)
    assert list(read.blkio_stats.io_service_bytes_recursive) == [
        BlkioStatsEntry(major=8, minor=0, op="Read", value=10),
        BlkioStatsEntry(major=8, minor=0, op="Write", value=20),
    ]
    assert list(read.blkio_stats.io_time_recursive) == [BlkioStatsEntry(major=8, minor=0, value=40)]


def test_the_cgroup_of_a_process_is_read_from_the_kernel() -> None:
    own = hierarchy.of(os.getpid())

    directories = [own.directory] if isinstance(own, CgroupV2) else own.directories.values()
    assert directories
    assert all((directory / "cgroup.procs").exists() for directory in directories)
    assert isinstance(stats.read(own), CgroupStats)


def test_a_process_that_is_gone_has_no_cgroup() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    with pytest.raises(OSError, match=str(child.pid)):
        hierarchy.of(child.pid)


@pytest.fixture
def cgroup() -> Iterator[CgroupV1 | CgroupV2]:
    """A cgroup of its own, with one below it."""
    name = f"kata-test-{os.getpid()}"
    if hierarchy.unified():
        made = [hierarchy.ROOT / name]
    else:
        made = [hierarchy.ROOT / controller / name for controller in ("freezer", "pids")]
    for directory in made:
        (directory / "below").mkdir(parents=True)
    yield CgroupV2(made[0]) if hierarchy.unified() else CgroupV1(dict(zip(("freezer", "pids"), made, strict=True)))
    for directory in made:
        (directory / "below").rmdir()
        directory.rmdir()


def test_a_process_of_another_pid_namespace_is_not_taken_for_our_own_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n")
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))

    CgroupV2(tmp_path).kill()

    assert killed == []


@pytest.mark.root
def test_killing_a_cgroup_reaches_all_in_it_and_below(cgroup: CgroupV1 | CgroupV2) -> None:
    directory = cgroup.directory if isinstance(cgroup, CgroupV2) else cgroup.directories["freezer"]
    children = []
    for place in (directory, directory / "below"):
        join = f"echo $$ > {place}/cgroup.procs && echo && exec sleep 100"
        child = subprocess.Popen(["sh", "-c", join], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it has joined
        children.append(child)

    cgroup.kill()

    assert [child.wait(timeout=10) for child in children] == [-signal.SIGKILL] * 2
    for child in children:
        child.communicate()
