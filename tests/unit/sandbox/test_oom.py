from __future__ import annotations

import asyncio
from typing import cast

import pytest

from kata_py.sandbox import oom
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError, Unavailable


class Telling:
    """An agent that tells, or fails, at once, in this order; then it is gone."""

    def __init__(self, *answers: str | SandboxError) -> None:
        self._answers = list(answers)

    async def next_oom(self) -> str:
        if not self._answers:
            raise Unavailable("gone")
        answer = self._answers.pop(0)
        if isinstance(answer, SandboxError):
            raise answer
        return answer


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, each time, had it been waited."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


async def test_events_are_told_at_once_but_not_all_at_once(pauses: list[float]) -> None:
    told: list[tuple[str, int]] = []

    async def tell(container_id: str) -> None:
        told.append((container_id, len(pauses)))

    await oom.watch(cast(Agent, Telling("a", "b", "b")), tell)
    assert told == [("a", 0), ("b", 1), ("b", 2)]
    assert pauses == [oom.SPACING] * 3


async def test_an_agent_that_fails_again_and_again_is_asked_less_and_less_often(pauses: list[float]) -> None:
    async def tell(container_id: str) -> None:
        pytest.fail("nothing was told")

    await oom.watch(cast(Agent, Telling(*[SandboxError("no")] * 9)), tell)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
