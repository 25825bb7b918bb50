"""Processes of a cgroup that the kernel has killed for want of memory, told when it happens.

Counted by `oom_kill`: `oom` alone is also a failed allocation that killed nobody.
Source: `memory.events` of the kernel's cgroup-v2 guide; `memory.oom_control` and `cgroup.event_control` of v1's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from kata_agent.cgroup.hierarchy import Cgroup, CgroupV1, CgroupV2
from kata_agent.watch import Watch

_LOG = logging.getLogger(__name__)

# v1 tells of a kill before it kills; how often and after how many seconds we look again.
_LOOKS_V1 = 100
_PAUSE_V1 = 0.01


class OomWatch:
    """Reports each rise of the number of kills, until closed or until the cgroup is gone.

    Args:
        cgroup: Which one; without a memory controller nothing is ever reported.
        report: What is called, from the event loop.
    """

    def __init__(self, cgroup: Cgroup, report: Callable[[], object]) -> None:
        self._report = report
        self._counter: Path | None = None
        self._resources = ExitStack()
        self._looks = 0
        try:
            match cgroup:
                case CgroupV2(directory):
                    self._counter = directory / "memory.events"
                    self._events = self._resources.enter_context(Watch(self._counter, self._changed_v2))
                case CgroupV1(directories):
                    self._counter = directories["memory"] / "memory.oom_control"
                    self._listen_v1(self._counter)
            self._kills = self._count()
        except (OSError, KeyError) as error:
            self.close()
            _LOG.warning("kills for want of memory cannot be watched: %s", error)

    def check(self) -> None:
        """Look now, and report what has risen."""
        if self._counter is None:
            return
        try:
            kills = self._count()
        except OSError:  # the cgroup is gone
            self.close()
            return
        if kills > self._kills:
            self._kills = kills
            self._report()

    def close(self) -> None:
        """Watch no longer; again is fine."""
        self._counter = None
        self._resources.close()

    def _count(self) -> int:
        assert self._counter is not None
        pairs = (line.split() for line in self._counter.read_text().splitlines())
        return next((int(value) for key, value in pairs if key == "oom_kill"), 0)

    def _changed_v2(self) -> None:
        try:
            self._events.read()  # else the kernel sees no news in the next change
        except OSError:
            self.close()
        self.check()

    def _listen_v1(self, file: Path) -> None:
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._resources.callback(os.close, event)
        with file.open() as control:
            (file.parent / "cgroup.event_control").write_text(f"{event} {control.fileno()}")
        loop = asyncio.get_running_loop()
        loop.add_reader(event, self._told_v1, event)
        self._resources.callback(loop.remove_reader, event)

    def _told_v1(self, event: int) -> None:
        os.eventfd_read(event)
        before = self._looks
        self._looks = _LOOKS_V1
        if not before:
            self._look_v1()

    def _look_v1(self) -> None:
        if self._counter is None or not self._looks:
            return
        before = self._kills
        self.check()
        self._looks = 0 if self._kills > before else self._looks - 1
        if self._looks:
            asyncio.get_running_loop().call_later(_PAUSE_V1, self._look_v1)
