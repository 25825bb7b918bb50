"""Out-of-memory kills in the guest, told to the manager as they happen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError, Unavailable, Unimplemented

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds before the agent is asked again after an error, as kata's own shim; twice as many after the next
PAUSE_MAX = 64.0
SPACING = 0.1  # seconds between two events: a guest that tells of them without end fills neither log nor manager


async def watch(agent: Agent, tell: Callable[[str], Awaitable[None]]) -> None:
    """Follow the agent's events until it is gone, or turns out to have none.

    Args:
        agent: The agent.
        tell: Awaited with the id of each container in which the kernel killed.
    """
    pause = PAUSE
    while True:
        try:
            container_id = await agent.next_oom()
        except Unavailable:
            return
        except Unimplemented as error:
            logger.warning("out-of-memory kills in the guest will not be told: %s", error)
            return
        except SandboxError as error:
            logger.warning("cannot learn of out-of-memory kills: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)
        else:
            await tell(container_id)
            await asyncio.sleep(SPACING)
