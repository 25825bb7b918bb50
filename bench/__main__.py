"""`make bench`: the figures of docs/performance.md, as its table.

Each module gives `figures()`: name, value, bar. Figures of the guest take about a minute.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

from bench import adaptor, agents, guest, monitor, overhead, podvm, pool, proxy, shim_start, splice, ttrpc, tunnel

Figure = tuple[str, str, str]

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "ttrpc": ttrpc.figures,
    "splice": splice.figures,
    "proxy": proxy.figures,
    "adaptor": adaptor.figures,
    "tunnel": tunnel.figures,
    "podvm": podvm.figures,
    "pool": pool.figures,
    "monitor": monitor.figures,
    "shim": shim_start.figures,
    "guest": guest.figures,
    "overhead": overhead.figures,
}

# What needs a room of its own, or more of the machine than others like: measured when it is named.
APART: dict[str, Callable[[], list[Figure]]] = {"agents": agents.figures}


def main(wanted: Iterable[str]) -> int:
    """Measure the named parts, or all, and print a table row as each is known."""
    parts = list(wanted) or list(PARTS)
    unknown = [name for name in parts if name not in PARTS | APART]
    if unknown:
        print(f"no part {', '.join(unknown)}; there are {', '.join(PARTS | APART)}", file=sys.stderr)
        return 2
    print(f"{date.today():%Y-%m-%d}, {os.cpu_count()} × {processor()}, Linux {platform.release()}\n")
    print("| Figure | Value | Bar |\n|---|---|---|")
    for name in parts:
        for figure in (PARTS | APART)[name]():
            print("|", " | ".join(figure), "|", flush=True)
    return 0


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
