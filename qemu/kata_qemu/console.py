"""The guest's console: into the log, into the tail for errors, and watched for the stages of the boot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from kata_py.resource.journal import Journal
from kata_qemu.lines import Tail

# What the initramfs and the agent print as they begin; each ends the stage named.
INITRAMFS = "kata-boot: initramfs"
AGENT = "kata-boot: agent"

log = logging.getLogger(__name__)


class Console:
    """Takes the console's lines, one by one.

    Args:
        socket: Where QEMU offers the console, for the log.
        tail: Where lines are kept.
        journal: Is told the stages `kernel` and `userland`.
        clock: Monotonic nanoseconds; the kernel's stage begins now.
    """

    def __init__(
        self, socket: Path, tail: Tail, journal: Journal, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._tail = tail
        self._journal = journal
        self._clock = clock
        self._began = clock()
        self._stages = {INITRAMFS: "kernel", AGENT: "userland"}
        self._fields = {"console-protocol": "unix", "console-url": str(socket)}

    def take(self, line: str) -> None:
        """Take a line. The words are those that users search their logs for (OpenShift guide, 11.2.2)."""
        self._tail.add(line)
        log.debug("reading guest console", extra={**self._fields, "vmconsole": line})
        for marker in self._stages:
            if line.endswith(marker):  # firmware may have left its own words on the line
                self._end(marker)
                break

    def _end(self, marker: str) -> None:
        now = self._clock()
        self._journal.stage(self._stages.pop(marker), self._began, now)
        self._began = now
