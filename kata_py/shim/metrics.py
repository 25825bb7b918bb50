"""Figures in Prometheus' text form: of the sandbox's programs on the host, and what the agent tells of the guest.

Names are kata's (`src/runtime/pkg/containerd-shim-v2/shim_metrics.go`, `virtcontainers/sandbox_metrics.go`).
Source of the form: Prometheus' "Exposition formats", text-based; of the figures: proc(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATUS = (
    *("VmPeak", "VmSize", "VmLck", "VmPin", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk"),
    *("VmExe", "VmLib", "VmPTE", "VmPMD", "VmSwap", "HugetlbPages"),
    *("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"),
)
_STAT = ("utime", "stime", "cutime", "cstime")
_IO = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
_NETDEV = (
    *(f"recv_{item}" for item in ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")),
    *(f"sent_{item}" for item in ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")),
)
_LIMIT = re.compile(r"^Max (open files|address space) +(\w+)", re.MULTILINE)
_UNLIMITED = (1 << 64) - 1  # as the kernel has it, and Go's client library
MOST_LINES = 10_000  # of the agent's text: each may become a series, which whoever scrapes has to keep
_MOST_INTERFACES = 16  # a pod has a few; one whose pod makes hundreds is not to fill the node's figures

# Of the agent's text, lines of families that are the agent's to tell; upstream's first agent had go_ and process_.
_LINE = re.compile(
    r"(?P<comment># (?:HELP|TYPE) )?(?P<name>(?:kata_agent_|kata_guest_|go_|process_)[a-zA-Z0-9_]+)"
    r"(?P<rest>[ {][^\x00-\x1f\x7f]*)"
)


def of_programs(programs: Mapping[str, int], proc: Path = Path("/proc")) -> str:
    """The figures of programs; blocks. One that has ended is left out.

    Args:
        programs: Their pids, by what the families are called after: `shim`, `hypervisor`, `virtiofsd`.
        proc: Where the kernel's files are.
    """
    return "".join(line for name, pid in programs.items() for line in _program(f"kata_{name}", name, proc / str(pid)))


def of_agent(text: str) -> str:
    """The agent's text as it is passed on. The guest is not trusted: what tells of anything else is left out."""
    lines = filter(None, map(_passed_on, text.splitlines()))
    return "".join(f"{line}\n" for line in islice(lines, MOST_LINES))


def _passed_on(line: str) -> str:
    found = _LINE.fullmatch(line)
    if found is None:
        return ""
    name = found["name"]
    prefix = "" if name.startswith("kata_") else "kata_agent_"
    return f"{found['comment'] or ''}{prefix}{name}{found['rest']}"


def _program(prefix: str, name: str, place: Path) -> Iterator[str]:
    try:
        status = _numbers((place / "status").read_text())
        fields = (place / "stat").read_text().rpartition(")")[2].split()  # from the third on
        descriptors = sum(1 for _ in (place / "fd").iterdir())
        io = _numbers((place / "io").read_text())
    except OSError:
        return
    yield from family(f"{prefix}_threads", f"Threads of the {name}.", {"": status.get("Threads", 0)})
    yield from family(f"{prefix}_fds", f"Open descriptors of the {name}.", {"": descriptors})
    memory = {key.lower(): status.get(key, 0) for key in _STATUS}
    yield from family(f"{prefix}_proc_status", f"Memory (KiB) and context switches of the {name}.", memory)
    times = dict(zip(_STAT, map(int, fields[11:15]), strict=True))
    yield from family(f"{prefix}_proc_stat", f"Processor time of the {name} and its children, in ticks.", times)
    moved = {key.replace("_", ""): io.get(key, 0) for key in _IO}
    yield from family(f"{prefix}_io_stat", f"What the {name} has read and written.", moved)
    if name == "hypervisor":
        yield from _netdev(f"{prefix}_netdev", place)
    if name == "shim":
        yield from _process(place, fields, descriptors)


def _process(place: Path, fields: Sequence[str], descriptors: int) -> Iterator[str]:
    """What Prometheus' client libraries tell of the process that they are in, by their names.

    A monitor puts `kata_shim_` before them. Source: Prometheus' "Writing client libraries", process metrics.
    """
    try:
        limits = dict(_LIMIT.findall((place / "limits").read_text()))
        descriptors_max, memory_max = (_limit(limits[key]) for key in ("open files", "address space"))
        booted = int((place.parent / "stat").read_text().partition("\nbtime ")[2].split(None, 1)[0])
    except (OSError, LookupError):
        return
    second = os.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) / second
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    for name, help, number in (
        ("cpu_seconds_total", "Processor time of the shim, in seconds.", used),
        ("open_fds", "Open descriptors of the shim.", descriptors),
        ("max_fds", "Descriptors that the shim may have open.", descriptors_max),
        ("virtual_memory_bytes", "Virtual memory of the shim.", int(fields[20])),
        ("virtual_memory_max_bytes", "Virtual memory that the shim may have.", memory_max),
        ("resident_memory_bytes", "Resident memory of the shim.", resident),
        ("start_time_seconds", "When the shim was started, since 1970.", booted + int(fields[19]) / second),
    ):
        yield from family(f"process_{name}", help, {"": number}, "counter" if name.endswith("_total") else "gauge")


def _netdev(name: str, place: Path) -> Iterator[str]:
    """The interfaces of the pod's network namespace, which the machine is in.

    One that is in the shim's, where pods get none of their own, has the node's interfaces: they are told once by
    whoever tells of nodes, not again with each sandbox.
    """
    try:
        if (place / "ns" / "net").stat().st_ino == (place.parent / "self" / "ns" / "net").stat().st_ino:
            return
        lines = (place / "net" / "dev").read_text(errors="replace").splitlines()[2:]
    except OSError:
        return
    yield f"# HELP {name} Traffic of the interfaces in the pod's network namespace.\n# TYPE {name} gauge\n"
    for line in lines[:_MOST_INTERFACES]:
        interface, _, numbers = line.strip().rpartition(":")
        label = interface.replace("\\", r"\\").replace('"', r"\"")
        for item, number in zip(_NETDEV, numbers.split(), strict=False):
            yield f'{name}{{interface="{label}",item="{item}"}} {number}\n'


def family(name: str, help: str, items: Mapping[str, int | float], type: str = "gauge") -> Iterator[str]:
    """A family's lines.

    Args:
        name: The family's.
        help: What it is, for Prometheus.
        items: Its values by the label `item`; the one of an empty name has no label.
        type: As Prometheus calls it.
    """
    yield f"# HELP {name} {help}\n# TYPE {name} {type}\n"
    for item, number in items.items():
        yield f'{name}{{item="{item}"}} {number}\n' if item else f"{name} {number}\n"


def _limit(text: str) -> int:
    return _UNLIMITED if text == "unlimited" else int(text)


def _numbers(text: str) -> dict[str, int]:
    """The first number of each line of `name: number`."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        word = value.split(None, 1)[:1]
        if word and word[0].isdecimal():
            found[key] = int(word[0])
    return found
