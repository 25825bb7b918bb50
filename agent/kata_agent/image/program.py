"""Programs that may take as long as they get on, and are killed when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from kata_agent.errors import AgentError
from kata_agent.image.errors import Stalled

if TYPE_CHECKING:
    from kata_agent.container.reaper import Child, Reaper

STALL_TIMEOUT = 60.0  # seconds without progress

_LOOKS = 12  # at the progress, in that time
_KILL_TIMEOUT = 5.0  # seconds from SIGKILL to the end; longer means stuck in the kernel
_OUTPUT_LIMIT = 4 << 20  # bytes of an output that are read


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
        code: Its exit code, or 128 + signal.
        output: What it wrote to its stdout.
        errors: What it wrote to its stderr.
    """

    code: int
    output: str
    errors: str


async def run(
    reaper: Reaper,
    argv: Sequence[str],
    *,
    progress: Callable[[], int],
    stall: float = STALL_TIMEOUT,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a program to its end; a cancelled one, or one without progress, is killed and has ended afterwards.

    Args:
        reaper: Starts it.
        argv: Its name and arguments.
        progress: A number that is another one whenever it has got on; it may block and is called in a thread.
        stall: Seconds that it may go on without progress.
        stdin: Descriptor of its input; None is an empty one.
        environment: Its environment; None is ours.

    Raises:
        Stalled: There was no progress.
        AgentError: There is no such program in this guest.
    """
    with ExitStack() as opened:
        if stdin is None:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, stdin)
        outputs = [os.memfd_create(argv[0], os.MFD_CLOEXEC) for _ in range(2)]
        for output in outputs:
            opened.callback(os.close, output)
        try:
            child = reaper.spawn(argv, streams=(stdin, *outputs), environment=environment)
        except FileNotFoundError:
            raise AgentError(
                f"this guest has no {argv[0]}, which pulling images needs: use an image for that"
            ) from None
        try:
            await _follow(child, argv[0], progress, stall)
        finally:
            await _end(child)
        code = child.exited.result()
        return Outcome(code, *(os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace") for output in outputs))


async def _follow(child: Child, name: str, progress: Callable[[], int], stall: float) -> None:
    loop = asyncio.get_running_loop()
    seen, since = -1, loop.time()
    while not child.exited.done():
        await asyncio.wait({child.exited}, timeout=stall / _LOOKS)
        now = await asyncio.to_thread(progress)
        if now != seen:
            seen, since = now, loop.time()
        elif loop.time() - since >= stall and not child.exited.done():
            raise Stalled(f"{name} made no progress for {stall:g} s")


async def _end(child: Child) -> None:
    if child.exited.done():
        return
    with contextlib.suppress(ProcessLookupError):
        child.signal(signal.SIGKILL)
    await asyncio.wait({child.exited}, timeout=_KILL_TIMEOUT)
