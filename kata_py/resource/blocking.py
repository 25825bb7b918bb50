"""Blocking calls, kept off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

CANCEL_TIMEOUT = 5.0  # seconds that a cancelled caller waits for a system call that cannot be interrupted

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def off_loop(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a blocking function in a thread. A cancelled caller waits, as its clean-up must not overtake the call."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait([call], timeout=CANCEL_TIMEOUT)
        for ended in done:
            ended.exception()  # the cancellation is what counts
        raise
