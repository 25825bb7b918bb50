from __future__ import annotations

import pytest

from kata_py.resource.process import KillError
from kata_py.sandbox.transaction import transaction


async def test_a_failure_is_told_although_its_undoing_fails_too(caplog: pytest.LogCaptureFixture) -> None:
    undone: list[str] = []

    async def linger() -> None:
        raise KillError("agent (pid 7) is still there 5 s after SIGKILL")

    async def fail() -> None:
        async with transaction() as stack:
            stack.callback(undone.append, "first")
            stack.push_async_callback(linger)
            raise ValueError("the hook failed")

    with pytest.raises(ValueError, match="the hook failed"):
        await fail()
    assert undone == ["first"]
    assert "not all of it is undone: agent (pid 7) is still there" in caplog.text
