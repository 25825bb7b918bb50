"""Calls side by side, of which the first failure ends the others.

Not a `TaskGroup`: in Python 3.11, one that a child's failure ends while it waits for the others leaves its parent
marked as being cancelled, and an `asyncio.timeout` around it then ends in a bare cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """Run calls side by side, and give their results in order.

    Raises:
        Exception: The first failure; the other calls are cancelled and over by then.
    """
    if not calls:
        return []
    tasks = [asyncio.create_task(call, name=call.__qualname__) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
