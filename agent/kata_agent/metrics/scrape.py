"""All families at once, from a running kernel."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kata_agent import linux
from kata_agent.metrics import agent, guest
from kata_agent.metrics.family import Family, render, single

_LOG = logging.getLogger(__name__)


def scrape(count: int, proc: Path = Path("/proc")) -> str:
    """Read everything; what cannot be read is logged and left out.

    Args:
        count: How many scrapes there have been, this one included.
        proc: Where the kernel's files are.
    """
    return render(_families(count, proc))


def _families(count: int, proc: Path) -> Iterator[Family]:
    ticks, page_size = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    yield single("kata_agent_scrape_count", "Scrapes so far.", count, "counter")
    readers: list[tuple[str, Callable[[str], Iterable[Family]]]] = [
        ("self/stat", lambda text: agent.stat(text, page_size=page_size, ticks=ticks)),
        ("self/status", lambda text: [agent.status(text)]),
        ("self/io", lambda text: [agent.io(text)]),
        ("loadavg", guest.load),
        ("stat", lambda text: [guest.cpu_time(text, ticks=ticks)]),
        ("vmstat", lambda text: [guest.vm_stat(text)]),
        ("net/dev", lambda text: [guest.netdev_stat(text)]),
        ("diskstats", lambda text: [guest.diskstat(text)]),
        ("meminfo", lambda text: [guest.meminfo(text)]),
    ]
    for name, read in readers:
        try:
            yield from read((proc / name).read_text())
        except (OSError, ValueError, LookupError) as error:
            _LOG.warning("no metrics from %s: %s", proc / name, error)
    yield from guest.filesystems(linux.mounts())
