from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kata_agent.container.reaper import Reaper

TIMEOUT = 10.0
STREAMS = (0, 1, 2)


def _zombies() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if ") Z " in Path(f"/proc/{pid}/stat").read_text()]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 the kernel's table of processes tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
async def test_an_end_is_told_as_code_or_128_and_the_signal(reaper: Reaper, script: str, code: int) -> None:
    assert await reaper.run(["sh", "-c", script], streams=STREAMS, timeout=TIMEOUT) == code


async def test_all_waiters_learn_of_an_end_also_later_ones(reaper: Reaper) -> None:
    child = reaper.spawn(["sh", "-c", "exit 3"], streams=STREAMS)

    async with asyncio.timeout(TIMEOUT):
        assert await asyncio.gather(child.wait(), child.wait()) == [3, 3]
        assert await child.wait() == 3


async def test_cancelling_a_waiter_takes_nothing_from_the_others(reaper: Reaper) -> None:
    child = reaper.spawn(["sleep", "100"], streams=STREAMS)
    impatient, patient = asyncio.create_task(child.wait()), asyncio.create_task(child.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])

    child.signal(signal.SIGKILL)

    async with asyncio.timeout(TIMEOUT):
        assert await patient == 137


async def test_a_program_that_takes_too_long_is_killed(reaper: Reaper) -> None:
    with pytest.raises(TimeoutError, match=r"sleep was killed after 0\.05 s"):
        await reaper.run(["sleep", "100"], streams=STREAMS, timeout=0.05)


async def test_a_missing_program_is_an_error_of_its_start(reaper: Reaper) -> None:
    with pytest.raises(FileNotFoundError):
        reaper.spawn(["no-such-program"], streams=STREAMS)


async def test_a_signal_to_one_that_has_ended_reaches_nobody(reaper: Reaper) -> None:
    child = reaper.spawn(["true"], streams=STREAMS)
    await child.wait()

    with pytest.raises(ProcessLookupError):
        child.signal(signal.SIGKILL)


async def test_a_program_starts_with_the_signals_of_a_new_process(reaper: Reaper) -> None:
    reader, writer = os.pipe()
    await reaper.run(["grep", "SigIgn", "/proc/self/status"], streams=(0, writer, 2), timeout=TIMEOUT)
    os.close(writer)

    assert int(os.read(reader, 100).split()[1], 16) & (1 << signal.SIGPIPE - 1) == 0
    os.close(reader)


async def test_a_program_can_be_called_otherwise_and_given_its_environment(reaper: Reaper) -> None:
    reader, writer = os.pipe()
    argv = ["called", "-c", 'echo "$0"; echo "$WORD"; echo "${HOME-no home}"']
    code = await reaper.run(
        argv, program="/bin/sh", environment={"WORD": "given"}, streams=(0, writer, 2), timeout=TIMEOUT
    )
    os.close(writer)

    assert code == 0
    assert os.read(reader, 100) == b"called\ngiven\nno home\n"
    os.close(reader)


async def _leave_behind(reaper: Reaper, script: str) -> int:
    """Run a program that leaves a shell behind, without ever waiting for it; gives the shell's pid."""
    reader, writer = os.pipe()
    argv = ["setsid", "--fork", "sh", "-c", f"echo $$; {script}"]
    code = await reaper.run(argv, streams=(0, writer, 2), timeout=TIMEOUT)
    os.close(writer)
    pid = int(os.read(reader, 100))
    os.close(reader)
    assert code == 0
    return pid


async def test_an_orphan_is_adopted_with_its_exit_code(reaper: Reaper) -> None:
    with reaper.expecting():
        child = reaper.adopt(await _leave_behind(reaper, "exec sleep 100"))

    child.signal(signal.SIGTERM)

    async with asyncio.timeout(TIMEOUT):
        assert await child.wait() == 143


async def test_an_orphan_that_ended_before_its_adoption_is_not_lost(reaper: Reaper) -> None:
    with reaper.expecting():
        pid = await _leave_behind(reaper, "exit 9")
        await _until(lambda: not Path(f"/proc/{pid}").exists())  # collected
        child = reaper.adopt(pid)

    assert await child.wait() == 9


async def test_orphans_that_nobody_asked_about_leave_no_zombies(reaper: Reaper) -> None:
    for _ in range(20):
        await _leave_behind(reaper, "exit 1")

    await _until(lambda: not _zombies())


async def test_many_programs_at_once_keep_their_codes_apart(reaper: Reaper) -> None:
    runs = [reaper.run(["sh", "-c", f"exit {code}"], streams=STREAMS, timeout=TIMEOUT) for code in range(64)]

    assert await asyncio.gather(*runs) == list(range(64))
