"""Kernel modules that the host asks for; file systems the kernel loads by itself when they are mounted."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError

_TIMEOUT = 30.0  # seconds


async def load(reaper: Reaper, name: str, parameters: Sequence[str]) -> None:
    """Load a module by modprobe(8).

    Raises:
        AgentError: modprobe is not there or failed; its words are in the message.
    """
    output = os.memfd_create("modprobe", os.MFD_CLOEXEC)
    try:
        argv = ["modprobe", "-v", name, *parameters]
        code = await reaper.run(argv, streams=(output, output, output), timeout=_TIMEOUT)
        said = os.pread(output, 4096, 0).decode(errors="replace").strip()
    except (OSError, TimeoutError) as error:
        raise AgentError(f"cannot load kernel module {name}: {error}") from error
    finally:
        os.close(output)
    if code != 0:
        raise AgentError(f"cannot load kernel module {name}: {said or f'modprobe ended with status {code}'}")
