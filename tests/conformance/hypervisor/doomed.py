"""Launches a machine, and kills itself with its nth entry in the record, or stays until it is killed.

Usage: python -m tests.conformance.hypervisor.doomed DRIVER DIRECTORY ENTRIES
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from kata_py.resource.undo import Undo
from kata_py.sandbox.record import Record
from tests.conformance.hypervisor.cases import CASES, SANDBOX


class DoomedRecord(Record):
    """Kills its process once an entry is on disk."""

    entries = 0

    def intend(self, undo: Undo) -> None:
        super().intend(undo)
        self.entries -= 1
        if self.entries == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(name: str, top: Path, entries: int) -> None:
    case = CASES[name]
    record = DoomedRecord.create(SANDBOX, namespace="default", bundle="/bundle", root=top / "records")
    assert isinstance(record, DoomedRecord)
    record.entries = entries
    async with case.driver().launch(case.spec(top), record):
        print("launched", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
