"""What is made as a whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncExitStack]:
    """A stack that a failure undoes to its end: whoever is cancelled meanwhile goes on waiting."""
    stack = AsyncExitStack()
    try:
        yield stack
    except BaseException:
        undoing = asyncio.create_task(stack.aclose(), name="undoing")
        while not undoing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([undoing])
        undoing.result()
        raise
