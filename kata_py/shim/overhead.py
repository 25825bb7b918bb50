"""What a pod takes of its host beyond what its containers use in the guest.

As kata has it (`pkg/containerd-shim-v2/shim_metrics.go`, calcOverhead), with two differences. The host's side is read
of the sandbox's processes, not of its cgroup, where the shim and the hypervisor need not be. And nothing waits for a
second to pass: processor time is what was used since the figures were asked for before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kata_py.resource.proc import resident
from kata_py.shim.metrics import family

SHORTEST = 1.0  # seconds that processor time is taken over, at least: the kernel counts it in ticks

_FAMILY = "kata_shim_pod_overhead"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process or a container uses.

    Attributes:
        processor: Seconds of processor time so far.
        memory: Bytes.
    """

    processor: float
    memory: int


class Overhead:
    """One pod's overhead.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: tuple[float, Mapping[str, Usage], Mapping[str, Usage]] | None = None
        self._percent: float | None = None

    def text(self, host: Mapping[str, Usage], guest: Mapping[str, Usage]) -> str:
        """The figures in Prometheus' text form; that of the processor from the second time on.

        Args:
            host: Of the sandbox's programs, by their names.
            guest: Of the containers, by their ids.
        """
        now = self._clock()
        if self._before is None:
            self._before = now, host, guest
        elif now - self._before[0] >= SHORTEST:
            began, host_before, guest_before = self._before
            used = _since(host_before, host) - _since(guest_before, guest)
            self._percent = max(0.0, used / (now - began) * 100)
            self._before = now, host, guest
        memory = max(0, _memory(host) - _memory(guest))
        lines = [*family(f"{_FAMILY}_memory_in_bytes", "Memory of the pod beyond its containers'.", {"": memory})]
        if self._percent is not None:
            percent = round(self._percent, 2)
            lines += family(
                f"{_FAMILY}_cpu", "Processor time of the pod beyond its containers', in percent.", {"": percent}
            )
        return "".join(lines)


def of_programs(programs: Mapping[str, int], proc: Path = Path("/proc")) -> dict[str, Usage]:
    """What programs use; one that has ended is left out. The guest's memory is the hypervisor's; blocks.

    Args:
        programs: Their pids, by `shim`, `hypervisor`, `virtiofsd`.
        proc: Where the kernel's files are. Source: proc_pid_stat(5), proc_pid_status(5).
    """
    found = {}
    for name, pid in programs.items():
        held = resident(pid, proc)
        try:
            ticks = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:13]  # fields 14 and 15
        except OSError:
            continue
        if held is not None:
            memory = held.own + (held.shared if name == "hypervisor" else 0)
            found[name] = Usage(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), memory)
    return found


def _since(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> float:
    """Seconds of processor time of those who were there all the time; of one that ended agents may tell zeros."""
    return sum(max(0.0, after[name].processor - before[name].processor) for name in after.keys() & before.keys())


def _memory(usages: Mapping[str, Usage]) -> int:
    return sum(usage.memory for usage in usages.values())
