"""Deleting until it is done: giving up would leave a machine to be paid for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from kata_caa.errors import AdaptorError
from kata_caa.faults import LoopClock

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds before what failed is tried again; doubles
PAUSE_MAX = 60.0


async def insist(delete: Callable[[], Awaitable[None]], name: str) -> None:
    """Delete, as often as it takes, whatever it fails with.

    Args:
        delete: Does it.
        name: Of what is deleted.
    """
    clock, pause = LoopClock(), PAUSE
    while True:
        try:
            return await delete()
        except Exception as error:
            logger.warning(
                "%s cannot be deleted yet: %s; tried again in %.0f s",
                name,
                error,
                pause,
                exc_info=not isinstance(error, AdaptorError),
            )
        await clock.sleep(pause)
        pause = min(2 * pause, PAUSE_MAX)
