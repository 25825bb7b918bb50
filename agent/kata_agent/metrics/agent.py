"""Families that tell of the agent's own process, from proc(5)'s files of it."""

from __future__ import annotations

from kata_agent.metrics.family import Family, Samples, single

_STATUS = (
    *("VmPeak", "VmSize", "VmLck", "VmPin", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk"),
    *("VmExe", "VmLib", "VmPTE", "VmSwap", "HugetlbPages", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"),
)
_IO = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")


def stat(text: str, *, page_size: int, ticks: int) -> list[Family]:
    """Times and sizes.

    Args:
        text: Of `/proc/self/stat`.
        page_size: Bytes of a page.
        ticks: Ticks of the kernel's clock in a second.
    """
    fields = text.rpartition(")")[2].split()  # the program's name may hold anything; what follows is field 3
    utime, stime, cutime, cstime = map(int, fields[11:15])
    threads, size, resident = int(fields[17]), int(fields[20]), int(fields[21])
    times: Samples = {("utime",): utime, ("stime",): stime, ("cutime",): cutime, ("cstime",): cstime}
    return [
        single("kata_agent_threads", "Threads of the agent.", threads),
        single("kata_agent_total_time", "Seconds of processor time that the agent has taken.", (utime + stime) / ticks),
        single("kata_agent_total_vm", "Bytes of the agent's virtual memory.", size),
        single("kata_agent_total_rss", "Bytes of the agent's resident memory.", resident * page_size),
        Family("kata_agent_proc_stat", "Processor time of agent and children, in ticks.", ("item",), times),
    ]


def status(text: str) -> Family:
    """Memory in KiB and context switches, from the text of `/proc/self/status`; what it lacks is 0."""
    found = _by_name(text)
    samples: Samples = {(name.lower(),): found.get(name, 0) for name in _STATUS}
    return Family("kata_agent_proc_status", "Memory (KiB) and context switches of the agent.", ("item",), samples)


def io(text: str) -> Family:
    """Bytes and calls, from the text of `/proc/self/io`."""
    found = _by_name(text)
    samples: Samples = {(name,): found[name] for name in _IO if name in found}
    return Family("kata_agent_io_stat", "What the agent has read and written.", ("item",), samples)


def _by_name(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        first = value.split(None, 1)[:1]
        if first and first[0].isdecimal():
            found[name] = int(first[0])
    return found
