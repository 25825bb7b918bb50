"""Run commands side by side and print what they say one after the other: the first at once, each next when it is due.

    python -m tools.lanes 'a command' 'another one'

Ends with 0 if all of them did. All are interrupted together, and their clean-up is waited for.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Sequence

Process = asyncio.subprocess.Process


async def run(commands: Sequence[str], write: Callable[[bytes], object]) -> list[int]:
    """Run commands to their ends.

    Args:
        commands: As a shell would read them, without a shell.
        write: Takes what is to be printed.

    Returns:
        Their exit codes, in order.
    """
    processes = [
        await asyncio.create_subprocess_exec(*shlex.split(command), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        for command in commands
    ]
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal tells the whole process group
    loop.add_signal_handler(signal.SIGTERM, _terminate, processes)
    said: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in processes]
    async with asyncio.TaskGroup() as group:
        for process, queue in zip(processes, said, strict=True):
            group.create_task(_follow(process, queue), name=f"follow {process.pid}")
        for command, queue in zip(commands, said, strict=True):
            write(f"==> {command}\n".encode())
            while data := await queue.get():
                write(data)
    return [await process.wait() for process in processes]


async def _follow(process: Process, queue: asyncio.Queue[bytes]) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(1 << 16):
        queue.put_nowait(data)
    queue.put_nowait(b"")


def _terminate(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.terminate()


def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(any(asyncio.run(run(sys.argv[1:], _print))))
