"""Families that tell of the guest, from the kernel's files in /proc. Source: proc(5), Linux `Documentation/`."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kata_agent.linux import Mount
from kata_agent.metrics.family import Family, Samples

_CPU = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_NETDEV = (
    *("recv_bytes", "recv_packets", "recv_errs", "recv_drop", "recv_fifo", "recv_frame", "recv_compressed"),
    *("recv_multicast", "sent_bytes", "sent_packets", "sent_errs", "sent_drop", "sent_fifo", "sent_colls"),
    *("sent_carrier", "sent_compressed"),
)
_DISK = (
    *("reads", "merged", "sectors_read", "time_reading", "writes", "writes_merged", "sectors_written", "time_writing"),
    *("in_progress", "time_in_progress", "weighted_time_in_progress", "discards", "discards_merged"),
    *("sectors_discarded", "time_discarding", "flushes", "time_flushing"),
)
_MEMORY = {
    "MemTotal": "mem_total", "MemFree": "mem_free", "MemAvailable": "mem_available", "Buffers": "buffers",
    "Cached": "cached", "SwapCached": "swap_cached", "Active": "active", "Inactive": "inactive",
    "Active(anon)": "active_anon", "Inactive(anon)": "inactive_anon", "Active(file)": "active_file",
    "Inactive(file)": "inactive_file", "Unevictable": "unevictable", "Mlocked": "mlocked",
    "HighTotal": "high_total", "HighFree": "high_free", "LowTotal": "low_total", "LowFree": "low_free",
    "MmapCopy": "mmap_copy", "SwapTotal": "swap_total", "SwapFree": "swap_free", "Dirty": "dirty",
    "Writeback": "writeback", "AnonPages": "anon_pages", "Mapped": "mapped", "Shmem": "shmem", "Slab": "slab",
    "SReclaimable": "s_reclaimable", "SUnreclaim": "s_unreclaim", "KernelStack": "kernel_stack",
    "PageTables": "page_tables", "Quicklists": "quicklists", "NFS_Unstable": "nfs_unstable", "Bounce": "bounce",
    "WritebackTmp": "writeback_tmp", "CommitLimit": "commit_limit", "Committed_AS": "committed_as",
    "VmallocTotal": "vmalloc_total", "VmallocUsed": "vmalloc_used", "VmallocChunk": "vmalloc_chunk",
    "HardwareCorrupted": "hardware_corrupted", "AnonHugePages": "anon_hugepages",
    "ShmemHugePages": "shmem_hugepages", "ShmemPmdMapped": "shmem_pmd_mapped", "CmaTotal": "cma_total",
    "CmaFree": "cma_free", "HugePages_Total": "hugepages_total", "HugePages_Free": "hugepages_free",
    "HugePages_Rsvd": "hugepages_rsvd", "HugePages_Surp": "hugepages_surp", "Hugepagesize": "hugepagesize",
    "DirectMap4k": "direct_map_4k", "DirectMap4M": "direct_map_4M", "DirectMap2M": "direct_map_2M",
    "DirectMap1G": "direct_map_1G", "Hugetlb": "hugetlb", "Percpu": "per_cpu", "KReclaimable": "k_reclaimable",
}  # fmt: skip
_FILESYSTEMS = ("ext4", "xfs", "btrfs", "vfat", "overlay")


def load(text: str) -> list[Family]:
    """Load and tasks, from the text of `/proc/loadavg`."""
    one, five, fifteen, tasks = text.split()[:4]
    running, _, all_ = tasks.partition("/")
    averages: Samples = {("load1",): float(one), ("load5",): float(five), ("load15",): float(fifteen)}
    return [
        Family("kata_guest_load", "Load of the guest.", ("item",), averages),
        Family(
            "kata_guest_tasks", "Tasks that run, and all.", ("item",), {("cur",): int(running), ("max",): int(all_)}
        ),
    ]


def cpu_time(text: str, *, ticks: int) -> Family:
    """Milliseconds by processor and kind.

    Args:
        text: Of `/proc/stat`.
        ticks: Ticks of the kernel's clock in a second.
    """
    samples: Samples = {}
    for line in text.splitlines():
        name, *values = line.split()
        if name.startswith("cpu"):
            cpu = name.removeprefix("cpu") or "total"
            for item, value in zip(_CPU, values, strict=False):
                samples[cpu, item] = int(value) * 1000 // ticks
    return Family("kata_guest_cpu_time", "Milliseconds of processor time.", ("cpu", "item"), samples)


def vm_stat(text: str) -> Family:
    """Every figure of `/proc/vmstat`."""
    samples: Samples = {(name,): int(value) for name, value in map(str.split, text.splitlines())}
    return Family("kata_guest_vm_stat", "Virtual memory of the guest.", ("item",), samples)


def netdev_stat(text: str) -> Family:
    """Bytes and packets by interface, from the text of `/proc/net/dev`."""
    samples: Samples = {}
    for line in text.splitlines()[2:]:
        interface, _, values = line.rpartition(":")
        for item, value in zip(_NETDEV, values.split(), strict=False):
            samples[interface.strip(), item] = int(value)
    return Family("kata_guest_netdev_stat", "Network devices of the guest.", ("interface", "item"), samples)


def diskstat(text: str) -> Family:
    """Requests by disk, from the text of `/proc/diskstats`; older kernels tell fewer kinds."""
    samples: Samples = {}
    for line in text.splitlines():
        _, _, disk, *values = line.split()
        for item, value in zip(_DISK, values, strict=False):
            samples[disk, item] = int(value)
    return Family("kata_guest_diskstat", "Disks of the guest.", ("disk", "item"), samples)


def meminfo(text: str) -> Family:
    """Bytes by use, and numbers of huge pages, from the text of `/proc/meminfo`; what it lacks is 0."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number, *unit = value.split()
        found[name] = int(number) * (1024 if unit == ["kB"] else 1)
    samples: Samples = {(item,): found.get(name, 0) for name, item in _MEMORY.items()}
    return Family("kata_guest_meminfo", "Memory of the guest, in bytes.", ("item",), samples)


def filesystems(mounts: Iterable[Mount]) -> list[Family]:
    """Bytes and inodes of each writable file system on a disk, by the place where it was first mounted."""
    size: Samples = {}
    inodes: Samples = {}
    seen = set()
    for mount in mounts:
        if mount.fstype not in _FILESYSTEMS or not mount.writable or mount.device in seen:
            continue
        seen.add(mount.device)
        try:
            found = os.statvfs(mount.target)
        except OSError:
            continue  # covered, or unmounted meanwhile
        place = (mount.target, mount.source)
        size[*place, "total"] = found.f_blocks * found.f_frsize
        size[*place, "used"] = (found.f_blocks - found.f_bfree) * found.f_frsize
        size[*place, "available"] = found.f_bavail * found.f_frsize
        inodes[*place, "total"] = found.f_files
        inodes[*place, "used"] = found.f_files - found.f_ffree
        inodes[*place, "available"] = found.f_ffree
    labels = ("mount", "device", "item")
    return [
        Family("kata_guest_filesystem_bytes", "File systems of the guest, in bytes.", labels, size),
        Family("kata_guest_filesystem_inodes", "File systems of the guest, in inodes.", labels, inodes),
    ]
