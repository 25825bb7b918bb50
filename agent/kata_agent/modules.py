"""Kernel modules: those that the image loads late, and those that the host asks for."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from kata_agent import linux
from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError

_LOG = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds
LATE = Path("/usr/lib/modules/late")  # the image's list: a path a line, in the order to load them in


class LateModules:
    """The modules that no guest needs to answer, but every sandbox needs to share files.

    Args:
        listed: The file that names them; a guest without it, such as a namespace of a host, has none to load.
    """

    def __init__(self, listed: Path = LATE) -> None:
        self._listed = listed
        self._done = threading.Event()

    def load(self) -> None:
        """Load them, in a thread of its own. One that fails is logged: whoever needs it will say so."""
        try:
            for line in self._listed.read_text().splitlines() if self._listed.exists() else ():
                try:
                    linux.insert_module(line)
                except OSError as error:
                    _LOG.warning("cannot load kernel module: %s", error)
        finally:
            self._done.set()

    async def loaded(self) -> None:
        """Wait until they were loaded.

        Raises:
            AgentError: The kernel took too long.
        """
        if not self._done.is_set() and not await asyncio.to_thread(self._done.wait, _TIMEOUT):
            raise AgentError(f"the kernel modules of {self._listed} were not loaded within {_TIMEOUT:g} s")


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
