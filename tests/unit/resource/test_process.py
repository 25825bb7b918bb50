from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kata_py.resource import process
from kata_py.resource.process import KillError, kill, spawn, start_time
from kata_py.resource.undo import KillProcess, Undo
from tests.drivers.journal import ListJournal


def is_stopped_or_gone(pid: int) -> bool:
    return start_time(pid) is None


async def test_a_program_runs_with_its_arguments_and_its_output_comes_back() -> None:
    async with spawn(ListJournal(), "echo", ["/bin/echo", "a b", "$c"], stdout=asyncio.subprocess.PIPE) as child:
        assert child.stdout is not None
        assert await child.stdout.read() == b"a b $c\n"
        assert await child.wait() == 0


async def test_a_program_reads_nothing_from_its_standard_input() -> None:
    async with spawn(ListJournal(), "cat", ["/bin/cat"]) as child, asyncio.timeout(5):
        assert await child.wait() == 0


async def test_the_entry_is_in_the_journal_before_the_program_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Watching(ListJournal):
        def intend(self, undo: Undo) -> None:
            assert not mark.exists()
            super().intend(undo)

    journal = Watching()
    async with spawn(journal, "toucher", ["/bin/touch", str(mark)]) as child:
        assert journal.entries == [KillProcess(child.pid, journal.entries[0].start_time, "toucher")]  # type: ignore[union-attr]
        assert await child.wait() == 0
    assert mark.exists()


async def test_a_descriptor_is_inherited_under_its_number_and_no_other_is() -> None:
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(12)]  # numbers of two digits
    try:
        async with spawn(
            ListJournal(), "ls", ["/bin/ls", "/proc/self/fd"], pass_fds=[spare[-1]], stdout=asyncio.subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            numbers = {int(number) for number in (await child.stdout.read()).split()}
    finally:
        for descriptor in spare:
            os.close(descriptor)
    assert numbers == {0, 1, 2, 3, spare[-1]}  # 3 is the directory that ls reads


async def test_leaving_the_context_kills_the_program_and_strikes_the_entry() -> None:
    journal = ListJournal()
    async with spawn(journal, "sleep", ["/bin/sleep", "60"]) as child:
        assert len(journal.entries) == 1
    assert child.returncode == -signal.SIGKILL
    assert journal.entries == []


async def test_a_journal_that_cannot_be_written_lets_nothing_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Full(ListJournal):
        def intend(self, undo: Undo) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        async with spawn(Full(), "toucher", ["/bin/touch", str(mark)]):
            raise AssertionError("entered")
    assert not mark.exists()


async def test_a_program_that_is_not_there_ends_with_status_127() -> None:
    async with spawn(ListJournal(), "nothing", ["/no/such/program"], stderr=asyncio.subprocess.PIPE) as child:
        assert child.stderr is not None
        assert b"/no/such/program" in await child.stderr.read()
        assert await child.wait() == 127


async def test_a_child_whose_starter_dies_before_the_gate_opens_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"""
        import asyncio, os, signal
        from kata_py.resource.process import spawn

        class Deadly:
            def intend(self, undo):
                print(undo.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        async def main():
            async with spawn(Deadly(), "toucher", ["/bin/touch", {str(mark)!r}]):
                pass

        asyncio.run(main())
    """
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await starter.communicate()
    assert starter.returncode == -signal.SIGKILL
    kill_wait(int(output))
    assert not mark.exists()


def kill_wait(pid: int) -> None:
    """Wait for the end of a process that ends by itself; it may be nobody's child by now."""
    deadline = time.monotonic() + 5
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        import select

        assert select.select([pidfd], [], [], deadline - time.monotonic())[0], f"{pid} does not end"
    finally:
        os.close(pidfd)


async def test_cancelling_whoever_started_it_ends_the_program() -> None:
    journal = ListJournal()
    running = asyncio.Event()

    async def hold() -> None:
        async with spawn(journal, "sleep", ["/bin/sleep", "60"]):
            running.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await running.wait()
    (undo,) = journal.made
    assert isinstance(undo, KillProcess)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert start_time(undo.pid) is None
    assert journal.entries == []


def test_a_process_has_one_start_time_and_a_zombie_none() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        born = start_time(child.pid)
        assert born is not None
        assert start_time(child.pid) == born
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None


def test_a_process_is_killed_and_waited_for() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        born = start_time(child.pid)
        assert born is not None
        kill(child.pid, born, signal.SIGKILL, name="sleep")
        assert start_time(child.pid) is None


def test_a_later_process_with_the_same_id_is_left_alone() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        born = start_time(child.pid)
        assert born is not None
        kill(child.pid, born - 1, signal.SIGKILL, name="sleep")
        assert start_time(child.pid) == born
        child.kill()


def test_a_process_that_outlives_its_signal_is_an_error_that_names_it() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        born = start_time(child.pid)
        assert born is not None
        with pytest.raises(KillError, match=rf"sleep \(pid {child.pid}\) is still there 0.05 s after signal 18"):
            kill(child.pid, born, signal.SIGCONT, name="sleep", timeout=0.05)
        child.kill()


def test_killing_what_is_gone_is_success() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
    kill(child.pid, 1, signal.SIGKILL, name="true")


def test_the_delete_path_does_not_load_asyncio() -> None:
    code = "import sys, kata_py.resource.undo; print(bool({'asyncio', 'pyroute2', 'socket'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert process.KILL_TIMEOUT <= 5


async def test_a_program_dies_with_the_process_that_started_it() -> None:
    code = """
        import asyncio, os
        from kata_py.resource.process import spawn
        from tests.drivers.journal import ListJournal

        async def main():
            async with spawn(ListJournal(), "sleeper", ["/bin/sleep", "1000"]) as child:
                print(child.pid, flush=True)
                os.kill(os.getpid(), 9)

        asyncio.run(main())
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    starter = await asyncio.to_thread(subprocess.run, program, stdout=subprocess.PIPE, check=False)
    assert starter.returncode == -signal.SIGKILL
    pid = int(starter.stdout)
    async with asyncio.timeout(5):
        while not is_stopped_or_gone(pid):  # noqa: ASYNC110 no child of ours
            await asyncio.sleep(0.01)
