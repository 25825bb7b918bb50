"""When a call to a cloud is tried again: exponential back-off with full jitter, by the kind of failure.

Many nodes fail at the same moment; waits drawn from the whole of [0, limit) spread their next tries evenly.
Source of the method: AWS Architecture Blog, "Exponential Backoff And Jitter".
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from kata_caa.errors import Fault, ProviderError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how slowly one kind of failure is tried again.

    Attributes:
        again: Further tries after the first; 0 gives up at once.
        first: The longest first wait, in seconds; it doubles from try to try.
        ceiling: What it grows to at most, in seconds.
        floor: The shortest wait, in seconds; the jitter lies above it.
    """

    again: int
    first: float = 0.0
    ceiling: float = 0.0
    floor: float = 0.0

    def limit(self, tried: int) -> float:
        """The longest wait after so many failures of this kind, in seconds."""
        return float(min(self.ceiling, self.first * 2 ** min(tried - 1, 32)))


_NEVER = Backoff(again=0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What is tried again.

    Attributes:
        backoffs: By the kind of failure; what is not named is not tried again.
        total: Seconds that all waits and tries may take; a wait that would end later is not begun.
    """

    backoffs: Mapping[Fault, Backoff] = field(
        default_factory=lambda: {
            Fault.TRANSIENT: Backoff(again=5, first=0.5, ceiling=8.0),
            Fault.THROTTLE: Backoff(again=10, first=2.0, ceiling=60.0),
        }
    )
    total: float = 300.0

    def wait(self, fault: Fault, tried: int, spent: float, draw: float) -> float | None:
        """How long to wait before the next try, in seconds; None gives up.

        Args:
            fault: What kind of failure the last try ended with.
            tried: How many tries ended with it, the last one among them.
            spent: Seconds since the first try began.
            draw: A random number in [0, 1).
        """
        backoff = self.backoffs.get(fault, _NEVER)
        if tried > backoff.again:
            return None
        wait = backoff.floor + draw * max(0.0, backoff.limit(tried) - backoff.floor)
        return wait if spent + wait <= self.total else None


CALLS = RetryPolicy()
"""For single calls: what is no fault of the request. Capacity and quotas concern the choice of what is asked for."""

CHOICES = RetryPolicy(backoffs={Fault.QUOTA: Backoff(again=3, first=20.0, ceiling=60.0, floor=5.0)}, total=180.0)
"""For a round over all candidates: a quota may be free again once other machines have gone, which takes its time."""


class Clock(Protocol):
    """Time, as far as waiting goes."""

    def time(self) -> float:
        """Monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class LoopClock:
    """The running loop's time."""

    def time(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    stage: str,
    clock: Clock | None = None,
    draw: Callable[[], float] = random.random,
    noticed: Callable[[ProviderError, float], None] | None = None,
) -> T:
    """Call until it succeeds or the policy gives up. Cancelling ends the call or the wait that is under way.

    Args:
        call: What is tried.
        policy: What is tried again, and when.
        stage: What the call does, for the error: `starting the machine`.
        clock: Time; the loop's by default.
        draw: Random numbers in [0, 1).
        noticed: Told of each failure that is tried again, with the seconds until then.

    Raises:
        ProviderError: The last failure, with stage, tries and time.
    """
    clock = clock or LoopClock()
    begun = clock.time()
    tried: Counter[Fault] = Counter()
    while True:
        try:
            return await call()
        except ProviderError as error:
            tried[error.fault] += 1
            spent = clock.time() - begun
            wait = policy.wait(error.fault, tried[error.fault], spent, draw())
            if wait is None:
                raise _final(error, stage, sum(tried.values()), spent) from error
            if noticed is not None:
                noticed(error, wait)
        await clock.sleep(wait)


def _final(error: ProviderError, stage: str, tries: int, spent: float) -> ProviderError:
    tail = f", tried {tries} times in {spent:.0f} s" if tries > 1 else ""
    return ProviderError(error.fault, f"{stage}: {error.cause}{tail}", code=error.code, hint=error.hint)
