"""A shim that creates and starts a container, and kills itself as soon as its record was written a number of times.

Usage: python -m tests.functional.sandbox.doomed TOP ROOTFS WRITES
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kata_py.sandbox.record import Record
from kata_py.shim.stdio import ManagerStdioOpener
from tests.drivers.namespace import NamespaceHypervisor
from tests.tasks import make_configuration, serving


def doom(writes: int) -> None:
    real = Record._write
    done = 0

    def write(self: Any) -> None:
        nonlocal done
        real(self)
        done += 1
        if done == writes:
            os.kill(os.getpid(), signal.SIGKILL)

    Record._write = write  # type: ignore[method-assign]  # this process is made to break


async def main(top: Path, rootfs: Path, writes: int) -> None:
    doom(writes)
    async with (
        ManagerStdioOpener() as opener,
        serving(
            top, NamespaceHypervisor, opener, configuration=make_configuration("namespace"), rootfs=rootfs
        ) as tasks,
    ):
        await tasks.run(args=["sleep", "600"], stdout="")
        await tasks.kill(signal.SIGKILL)
        await tasks.wait()
        await tasks.delete()
    print("survived")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
