from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_py.resource.process import start_time
from kata_py.resource.undo import Undo
from kata_qemu.process import running
from tests.drivers.journal import ListJournal


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


async def test_what_a_program_says_is_heard_with_its_pid_before_its_end_is_told() -> None:
    heard: list[tuple[int, str]] = []
    script = "echo one >&2; echo unseen; printf two >&2; exit 3"
    async with running(
        ListJournal(), "talker", shell(script), on_line=lambda pid, line: heard.append((pid, line))
    ) as talker:
        assert await talker.wait() == "talker exited with status 3"
        assert heard == [(talker.pid, "one"), (talker.pid, "two")]


async def test_a_signal_is_told_as_such() -> None:
    async with running(ListJournal(), "sleeper", shell("exec sleep 60"), on_line=print) as sleeper, asyncio.timeout(5):
        assert sleeper.alive
        os.kill(sleeper.pid, signal.SIGTERM)
        assert await sleeper.wait() == "sleeper was killed by signal 15"
        assert not sleeper.alive
        assert await sleeper.wait() == "sleeper was killed by signal 15"


async def test_a_program_is_killed_on_demand_and_a_second_time_is_fine() -> None:
    async with running(ListJournal(), "sleeper", shell("exec sleep 60"), on_line=print) as sleeper, asyncio.timeout(5):
        sleeper.kill()
        assert await sleeper.wait() == "sleeper was killed by signal 9"
        sleeper.kill()


async def test_leaving_ends_the_program_and_closes_what_was_opened() -> None:
    async def once() -> int:
        async with running(ListJournal(), "sleeper", shell("exec sleep 60"), on_line=print) as sleeper:
            pass
        assert start_time(sleeper.pid) is None
        return len(list(Path("/proc/self/fd").iterdir()))

    assert await once() == await once()


async def test_the_whole_command_line_is_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running(ListJournal(), "true", ["/bin/true", "a b"], on_line=print):
            pass
    assert "running true: /bin/true 'a b'" in caplog.messages


async def test_a_program_that_cannot_be_started_is_an_error_of_its_stage() -> None:
    class Full(ListJournal):
        def intend(self, undo: Undo) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(HypervisorError, match=r"qemu: cannot start /bin/true: .*No space left on device"):
        async with running(Full(), "qemu", ["/bin/true"], on_line=print):
            raise AssertionError("entered")
