"""When a call is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_caa.errors import Fault, ProviderError
from kata_caa.faults import CALLS, CHOICES, Backoff, RetryPolicy, retrying

POLICY = RetryPolicy({Fault.TRANSIENT: Backoff(again=3, first=1.0, ceiling=3.0)}, total=100.0)


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def failing(*faults: Fault):
    left: Iterator[Fault] = iter(faults)

    async def call() -> str:
        for fault in left:
            raise ProviderError(fault, f"it is {fault.value}", code="Code", hint="do this")
        return "done"

    return call


async def test_what_succeeds_at_once_is_called_once():
    assert await retrying(failing(), POLICY, stage="x") == "done"


@pytest.mark.parametrize("fault", [Fault.FATAL, Fault.CAPACITY])
@pytest.mark.parametrize("policy", [CALLS, CHOICES])
async def test_what_trying_again_cannot_help_fails_at_once(fault, policy):
    clock = Clock()
    with pytest.raises(ProviderError, match=rf"^making it: it is {fault.value} \[Code\] \(do this\)$") as error:
        await retrying(failing(fault), policy, stage="making it", clock=clock)
    assert clock.waits == []
    assert error.value.fault is fault


async def test_waits_double_up_to_the_ceiling():
    clock = Clock()
    assert await retrying(failing(*[Fault.TRANSIENT] * 3), POLICY, stage="x", clock=clock, draw=lambda: 0.5) == "done"
    assert clock.waits == [0.5, 1.0, 1.5]


async def test_after_the_last_try_the_error_tells_how_often_and_how_long():
    clock = Clock()
    with pytest.raises(ProviderError, match=r"^x: it is transient, tried 4 times in 3 s \[Code\]"):
        await retrying(failing(*[Fault.TRANSIENT] * 9), POLICY, stage="x", clock=clock, draw=lambda: 0.5)


async def test_each_kind_of_failure_has_tries_of_its_own():
    faults = [Fault.THROTTLE, Fault.TRANSIENT] * 5
    assert await retrying(failing(*faults), CALLS, stage="x", clock=Clock()) == "done"


async def test_a_wait_beyond_the_total_is_not_begun():
    clock = Clock()
    policy = RetryPolicy({Fault.THROTTLE: Backoff(again=99, first=60.0, ceiling=60.0)}, total=100.0)
    with pytest.raises(ProviderError):
        await retrying(failing(*[Fault.THROTTLE] * 99), policy, stage="x", clock=clock, draw=lambda: 0.99)
    assert clock.now <= 100.0
    assert clock.waits


async def test_a_quota_is_tried_a_few_times_and_slowly():
    clock = Clock()
    with pytest.raises(ProviderError, match="tried 4 times"):
        await retrying(failing(*[Fault.QUOTA] * 9), CHOICES, stage="x", clock=clock, draw=lambda: 0.0)
    assert clock.waits == [5.0, 5.0, 5.0]


async def test_other_errors_pass():
    async def call() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await retrying(call, POLICY, stage="x", clock=Clock())


async def test_cancelling_ends_the_wait():
    task = asyncio.create_task(
        retrying(failing(Fault.THROTTLE), RetryPolicy({Fault.THROTTLE: Backoff(1, 50.0, 50.0, 50.0)}), stage="x")
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_each_failure_that_is_tried_again_is_told():
    told = []
    await retrying(
        failing(Fault.TRANSIENT), POLICY, stage="x", clock=Clock(), draw=lambda: 0.0,
        noticed=lambda error, wait: told.append((error.fault, wait)),
    )  # fmt: skip
    assert told == [(Fault.TRANSIENT, 0.0)]


@given(st.sampled_from(Fault), st.integers(1, 50), st.floats(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_nor_above_its_limits(fault, tried, spent, draw):
    for policy in (CALLS, CHOICES):
        wait = policy.wait(fault, tried, spent, draw)
        if wait is not None:
            backoff = policy.backoffs[fault]
            assert backoff.floor <= wait <= backoff.ceiling
            assert spent + wait <= policy.total
            assert tried <= backoff.again
