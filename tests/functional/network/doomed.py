"""Opens a pod's network, and kills itself with its nth entry in the record, or stays until it is killed.

Usage: python -m tests.functional.network.doomed NETNS MODEL DIRECTORY ENTRIES
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from kata_py.network.model import Model, RateLimits
from kata_py.network.network import open_network
from kata_py.resource.undo import Undo
from kata_py.sandbox.record import Record


class DoomedRecord(Record):
    """Kills its process once an entry is on disk."""

    entries = 0

    def intend(self, undo: Undo) -> None:
        super().intend(undo)
        self.entries -= 1
        if self.entries == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(netns: Path, model: str, top: Path, entries: int) -> None:
    record = DoomedRecord.create("doomed", namespace="default", bundle="/bundle", root=top)
    assert isinstance(record, DoomedRecord)
    record.entries = entries
    limits = RateLimits(tx=1_000_000) if model == Model.TCFILTER.value else RateLimits()
    async with open_network(netns, Model(model), record, limits=limits):
        print("opened", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
