"""Shims that are a few lines, and a monitor of theirs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import pytest

from kata_py.http.server import Answer, Handler, HttpError, Request, serving
from kata_py.sandbox.sockets import SOCKET
from tests.monitor import Monitor, monitoring

_roots = itertools.count(1)


class Shims:
    """Shims below a root."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self.root = root
        self.asked: list[tuple[str, str]] = []
        self._stack = stack

    async def add(self, sandbox: str, answer: str | Callable[[], Awaitable[Answer]]) -> None:
        """One that answers each request with that."""

        async def handle(request: Request) -> Answer:
            self.asked.append((sandbox, request.path))
            return Answer(answer.encode()) if isinstance(answer, str) else await answer()

        await self.serve(sandbox, handle)

    async def serve(self, sandbox: str, handler: Handler) -> None:
        await self._stack.enter_async_context(serving(str(self.path(sandbox)), handler))

    def path(self, sandbox: str) -> Path:
        (self.root / sandbox).mkdir(parents=True, exist_ok=True)
        return self.root / sandbox / SOCKET


async def failing() -> Answer:
    raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "the agent is gone")


async def hanging() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("it went on")


@pytest.fixture
async def shims(short_tmp: Path) -> AsyncIterator[Shims]:
    async with AsyncExitStack() as stack:
        yield Shims(short_tmp / f"m{next(_roots)}", stack)


@pytest.fixture
async def monitor(shims: Shims) -> AsyncIterator[Monitor]:
    async with monitoring(shims.root) as monitor:
        yield monitor


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> float:
    """What a shim that hangs costs here."""
    monkeypatch.setattr("kata_py.monitor.scrape.SHIM_TIMEOUT", 1.0)
    return 1.0
