"""Standard streams: nothing lost, nobody held up."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kata_protos import task_types_pb2 as types
from kata_protos import task_v2_pb2 as task
from kata_py.sandbox import process
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.events import Topic
from kata_py.ttrpc.errors import StatusError
from tests.fakes import FakeAgent, MemoryOpener
from tests.tasks import Tasks, until

pytestmark = pytest.mark.root


async def test_a_wait_is_not_answered_before_the_output_is_written(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    opener.stalled = True
    await tasks.run()
    stdio = opener.opened["c1-stdout"]
    agent.process("c1").write(b"the end")
    agent.process("c1").exit(0)
    waiter = asyncio.create_task(tasks.wait())
    await stdio.asked.wait()
    assert (await tasks.state()).status == types.RUNNING
    assert not waiter.done()
    stdio.reading.set()
    await waiter
    assert stdio.written["stdout"] == b"the end"


async def test_a_wait_is_not_answered_before_the_manager_has_read_everything(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    opener.undrained = True
    await tasks.run()
    agent.process("c1").exit(0)
    waiter = asyncio.create_task(tasks.wait())
    await until(lambda: "WaitProcess" in agent.calls and ("c1", "") not in agent.processes)
    assert (await tasks.state()).status == types.RUNNING
    opener.opened["c1-stdout"].is_drained.set()
    await waiter


async def test_the_streams_are_closed_at_the_exit_and_not_only_at_delete(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    await tasks.run()
    agent.process("c1").exit(0)
    await tasks.wait()
    await until(lambda: opener.opened["c1-stdout"].closed)


async def test_a_reader_that_stalls_stops_neither_kill_nor_the_exit(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    opener.stalled = True
    await tasks.run()
    guest = agent.process("c1")
    for _ in range(40):  # more than is read ahead, and what a pipe holds besides
        guest.write(bytes(32 << 10))
    await opener.opened["c1-stdout"].asked.wait()
    async with asyncio.timeout(5):
        await tasks.kill(signal.SIGKILL)
        assert (await tasks.wait()).exit_status == 137
        await tasks.event(Topic.EXIT)
        await tasks.delete()
    assert tasks.leftovers() == []


async def test_a_reader_that_stalls_does_not_hide_the_end_of_a_process_that_nobody_signals(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    opener.stalled = True
    await tasks.run()
    for _ in range(40):  # more than is read ahead
        agent.process("c1").write(bytes(32 << 10))
    agent.process("c1").exit(3)
    async with asyncio.timeout(5):
        assert (await tasks.wait()).exit_status == 3


async def test_a_reader_that_stalls_leaves_stdin_running(tasks: Tasks, agent: FakeAgent, opener: MemoryOpener) -> None:
    opener.stalled = True
    await tasks.run(stdin="c1-stdin")
    for _ in range(80):
        agent.process("c1").write(bytes(32 << 10))
    opener.opened["c1-stdout"].stdin.put_nowait(b"more")
    await until(lambda: agent.process("c1").stdin == b"more")
    opener.opened["c1-stdout"].reading.set()


async def test_stdin_ends_after_all_that_was_written_before_close_io(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    await tasks.run(stdin="c1-stdin")
    stdio = opener.opened["c1-stdout"]
    guest = agent.process("c1")
    for number in range(100):
        stdio.stdin.put_nowait(b"%d " % number)
    assert not guest.stdin_closed.is_set()
    await tasks.client.CloseIO(task.CloseIORequest(id="c1", stdin=True))
    await guest.stdin_closed.wait()
    assert guest.stdin == b"".join(b"%d " % number for number in range(100))


async def test_close_io_before_the_start_counts_at_the_start(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    await tasks.create(stdin="c1-stdin")
    await tasks.client.CloseIO(task.CloseIORequest(id="c1", stdin=True))
    await tasks.start()
    await agent.process("c1").stdin_closed.wait()


async def test_without_a_stdin_the_process_reads_its_end_at_once(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.run()
    await agent.process("c1").stdin_closed.wait()


async def test_a_terminals_stdin_is_never_closed_in_the_guest(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    await tasks.run(stdin="c1-stdin", terminal=True)
    opener.opened["c1-stdout"].stdin.put_nowait(b"exit\n")
    await tasks.client.CloseIO(task.CloseIORequest(id="c1", stdin=True))
    await until(lambda: agent.process("c1").stdin == b"exit\n")
    agent.process("c1").exit(0)
    await tasks.wait()
    assert "CloseStdin" not in agent.calls
    assert "ReadStderr" not in agent.calls


async def test_a_process_that_ends_leaves_no_copy_of_stdin_behind(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    agent.hangs.add("WriteStdin")
    await tasks.run(stdin="c1-stdin")
    opener.opened["c1-stdout"].stdin.put_nowait(b"nobody reads this")
    await until(lambda: "WriteStdin" in agent.calls)
    agent.process("c1").exit(0)
    assert (await tasks.wait()).exit_status == 0


async def test_a_stream_that_cannot_be_opened_fails_the_start_and_nothing_runs(
    tasks: Tasks, agent: FakeAgent, opener: MemoryOpener
) -> None:
    opener.error = InvalidArgument("stdout /nowhere: No such file or directory")
    await tasks.create()
    with pytest.raises(StatusError, match="INVALID_ARGUMENT: stdout /nowhere"):
        await tasks.start()
    assert "StartContainer" not in agent.calls
    assert (await tasks.wait()).exit_status == 255


async def test_a_terminal_is_resized_in_rows_and_columns(tasks: Tasks, agent: FakeAgent) -> None:
    await tasks.create(terminal=True)
    resize = task.ResizePtyRequest(id="c1", width=132, height=50)
    await tasks.client.ResizePty(resize)  # before the start: what it starts with
    await tasks.start()
    await until(lambda: agent.process("c1").sizes == [(50, 132)])
    await tasks.client.ResizePty(task.ResizePtyRequest(id="c1", width=80, height=24))
    assert agent.process("c1").sizes == [(50, 132), (24, 80)]


async def test_a_resize_without_a_terminal_is_refused(tasks: Tasks) -> None:
    await tasks.run()
    with pytest.raises(StatusError, match="FAILED_PRECONDITION: container c1 has no terminal"):
        await tasks.client.ResizePty(task.ResizePtyRequest(id="c1", width=80, height=24))


async def test_64_mib_go_through_both_ways_at_once(tasks: Tasks, agent: FakeAgent, opener: MemoryOpener) -> None:
    total, chunk = 64 << 20, bytes(1 << 20)
    await tasks.run(stdin="c1-stdin")
    stdio, guest = opener.opened["c1-stdout"], agent.process("c1")
    for _ in range(total // len(chunk)):
        guest.write(chunk)
        stdio.stdin.put_nowait(chunk)
    stdio.close_stdin()
    await guest.stdin_closed.wait()
    guest.exit(0)
    await tasks.wait()
    assert len(guest.stdin) == len(stdio.written["stdout"]) == total
