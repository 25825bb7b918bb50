"""What is made as a whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

logger = logging.getLogger(__name__)


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncExitStack]:
    """A stack that a failure undoes to its end: whoever is cancelled meanwhile goes on waiting.

    It is the failure that is raised, whatever its undoing meets with.
    """
    stack = AsyncExitStack()
    try:
        yield stack
    except BaseException:
        undoing = asyncio.create_task(stack.aclose(), name="undoing")
        while not undoing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([undoing])
        if (error := undoing.exception()) is not None:  # it stays on record; what had failed first is the cause
            logger.warning("not all of it is undone: %s", error)
        raise
