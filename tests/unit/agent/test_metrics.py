from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kata_agent.linux import Mount
from kata_agent.metrics import agent, guest
from kata_agent.metrics.family import Family, render, single
from kata_agent.metrics.scrape import scrape

STAT = (
    "7 (a) b (c) S 1 1 1 0 -1 4194560 900 0 3 0 250 50 11 22 20 0 5 0 42 41943040 2560 18446744073709551615 1 1 0 0 0"
    " 0 0 16781312 134266880 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
)
STATUS = """\
Name:\tpython3
State:\tS (sleeping)
VmPeak:\t   50000 kB
VmRSS:\t   20000 kB
Threads:\t5
voluntary_ctxt_switches:\t77
"""
PROC_STAT = """\
cpu  100 1 50 9000 3 0 2 4 0 0
cpu0 60 1 30 4500 3 0 2 4 0 0
cpu1 40 0 20 4500 0 0 0 0 0 0
intr 12345 0 0
ctxt 999
"""
NETDEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compr
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0    0
  eth0: 123456789 1000    1    2    3     4          5         6  987654    900    7    8    9    10      11   12
"""
DISKS = """\
 254       0 vda 337 1 60928 129 14 2 8 37 0 164 204 5 6 7 8 14 37
 254      16 vdb 1 2 3 4 5 6 7 8 9 10 11
"""
MEMORY = """\
MemTotal:        2030000 kB
MemAvailable:    1900000 kB
Active(anon):        120 kB
HugePages_Total:       4
Hugepagesize:       2048 kB
DirectMap2M:     2048000 kB
Percpu:              500 kB
"""


# What the kernel's figures are called: dashboards ask for them by these names.
STATUS_ITEMS = (
    "vmpeak vmsize vmlck vmpin vmhwm vmrss rssanon rssfile rssshmem vmdata vmstk vmexe vmlib vmpte vmswap hugetlbpages "
    "voluntary_ctxt_switches nonvoluntary_ctxt_switches"
)
NETDEV_ITEMS = (
    "recv_bytes recv_packets recv_errs recv_drop recv_fifo recv_frame recv_compressed recv_multicast "
    "sent_bytes sent_packets sent_errs sent_drop sent_fifo sent_colls sent_carrier sent_compressed"
)
DISK_ITEMS = (
    "reads merged sectors_read time_reading writes writes_merged sectors_written time_writing in_progress "
    "time_in_progress weighted_time_in_progress discards discards_merged sectors_discarded time_discarding flushes "
    "time_flushing"
)
MEMORY_ITEMS = (
    "mem_total mem_free mem_available buffers cached swap_cached active inactive active_anon inactive_anon active_file "
    "inactive_file unevictable mlocked high_total high_free low_total low_free mmap_copy swap_total swap_free dirty "
    "writeback anon_pages mapped shmem slab s_reclaimable s_unreclaim kernel_stack page_tables quicklists nfs_unstable "
    "bounce writeback_tmp commit_limit committed_as vmalloc_total vmalloc_used vmalloc_chunk hardware_corrupted "
    "anon_hugepages shmem_hugepages shmem_pmd_mapped cma_total cma_free hugepages_total hugepages_free hugepages_rsvd "
    "hugepages_surp hugepagesize direct_map_4k direct_map_4M direct_map_2M direct_map_1G hugetlb per_cpu k_reclaimable"
)


def test_the_agents_process_is_told_in_seconds_bytes_and_ticks() -> None:
    families = {family.name: family for family in agent.stat(STAT, page_size=4096, ticks=100)}

    singles = {name: family.samples[()] for name, family in families.items() if not family.labels}
    assert singles == {
        "kata_agent_threads": 5,
        "kata_agent_total_time": 3.0,
        "kata_agent_total_vm": 41943040,
        "kata_agent_total_rss": 2560 * 4096,
    }
    ticks = {("utime",): 250, ("stime",): 50, ("cutime",): 11, ("cstime",): 22}
    assert families["kata_agent_proc_stat"].samples == ticks


def test_the_agents_memory_is_told_and_what_the_kernel_does_not_tell_is_zero() -> None:
    samples = agent.status(STATUS).samples

    told = {item: samples[item,] for item in ("vmpeak", "vmrss", "voluntary_ctxt_switches", "vmswap")}
    assert told == {"vmpeak": 50000, "vmrss": 20000, "voluntary_ctxt_switches": 77, "vmswap": 0}
    assert [item for (item,) in samples] == STATUS_ITEMS.split()


def test_what_the_agent_reads_and_writes_is_told() -> None:
    assert agent.io("rchar: 5\nwchar: 6\nunknown: 7\n").samples == {("rchar",): 5, ("wchar",): 6}


def test_load_and_tasks_are_told() -> None:
    load, tasks = guest.load("1.23 2.09 1.79 3/167 16517\n")

    assert load.samples == {("load1",): 1.23, ("load5",): 2.09, ("load15",): 1.79}
    assert tasks.samples == {("cur",): 3, ("max",): 167}


def test_processor_time_is_told_in_milliseconds_for_all_and_each() -> None:
    samples = guest.cpu_time(PROC_STAT, ticks=100).samples

    assert samples["total", "user"] == 1000
    assert samples["1", "idle"] == 45000
    assert samples["0", "steal"] == 40
    assert {cpu for cpu, _ in samples} == {"total", "0", "1"}
    assert len(samples) == 30


def test_virtual_memory_is_told_whole() -> None:
    assert guest.vm_stat("nr_free_pages 5\npgfault 7\n").samples == {("nr_free_pages",): 5, ("pgfault",): 7}


def test_network_devices_are_told_by_direction() -> None:
    samples = guest.netdev_stat(NETDEV).samples

    told = (123456789, 1000, 1, 2, 3, 4, 5, 6, 987654, 900, 7, 8, 9, 10, 11, 12)
    assert {item: number for (interface, item), number in samples.items() if interface == "eth0"} == dict(
        zip(NETDEV_ITEMS.split(), told, strict=True)
    )
    assert len(samples) == 32


def test_disks_are_told_as_far_as_the_kernel_knows() -> None:
    samples = guest.diskstat(DISKS).samples

    told = (337, 1, 60928, 129, 14, 2, 8, 37, 0, 164, 204, 5, 6, 7, 8, 14, 37)
    assert {item: number for (disk, item), number in samples.items() if disk == "vda"} == dict(
        zip(DISK_ITEMS.split(), told, strict=True)
    )
    assert samples["vdb", "weighted_time_in_progress"] == 11
    assert ("vdb", "discards") not in samples


def test_memory_is_told_in_bytes_and_huge_pages_by_number() -> None:
    samples = guest.meminfo(MEMORY).samples

    assert samples["mem_total",] == 2030000 * 1024
    assert samples["active_anon",] == 120 * 1024
    assert (samples["hugepages_total",], samples["hugepagesize",]) == (4, 2048 * 1024)
    assert (samples["direct_map_2M",], samples["per_cpu",], samples["quicklists",]) == (2048000 * 1024, 512000, 0)
    assert {item for (item,) in samples} == set(MEMORY_ITEMS.split())


def test_each_writable_file_system_on_a_disk_is_told_once(tmp_path: Path) -> None:
    here = str(tmp_path)
    mounts = [
        Mount(here, "8:1", "ext4", "/dev/vdb", True),
        Mount("/again", "8:1", "ext4", "/dev/vdb", True),
        Mount(here, "8:2", "xfs", "/dev/vdc", False),
        Mount(here, "0:5", "tmpfs", "tmpfs", True),
        Mount("/no/such/place", "8:3", "xfs", "/dev/vdd", True),
    ]

    size, inodes = guest.filesystems(mounts)

    assert set(size.samples) == {(here, "/dev/vdb", item) for item in ("total", "used", "available")}
    total, used = size.samples[here, "/dev/vdb", "total"], size.samples[here, "/dev/vdb", "used"]
    assert 0 < used < total
    assert set(inodes.samples) == set(size.samples)


def test_what_is_rendered_is_what_a_parser_reads() -> None:
    awkward = 'a "quoted" \\ back\nline'
    families = [
        single("scrapes_count", "How many.", 3, "counter"),
        Family("empty", "Nothing.", ("item",), {}),
        Family("items", "Some.", ("mount", "item"), {(awkward, "x"): 1.5, ("/b", "y"): 2**53 + 1}),
    ]

    parsed = list(text_string_to_metric_families(render(families)))

    assert [family.type for family in parsed] == ["counter", "gauge"]
    samples = {tuple(sample.labels.values()): sample.value for family in parsed for sample in family.samples}
    assert samples == {(): 3, (awkward, "x"): 1.5, ("/b", "y"): 2**53 + 1}


def test_a_running_kernel_is_told_whole_and_what_is_not_readable_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = {family.name: family for family in text_string_to_metric_families(scrape(1))}
    (tmp_path / "loadavg").write_text("garbage")
    partial = [family.name for family in text_string_to_metric_families(scrape(2, tmp_path))]

    assert whole["kata_guest_meminfo"].samples[0].value > 1 << 20
    assert {"kata_guest_cpu_time", "kata_guest_vm_stat", "kata_agent_io_stat", "kata_agent_proc_status"} <= set(whole)
    assert "kata_agent_scrape_count" in partial
    assert "kata_guest_load" not in partial
    assert f"no metrics from {tmp_path}/loadavg" in caplog.text
