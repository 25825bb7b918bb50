"""Containers of the real agent in namespaces, through the Task service on a real socket, over real fifos."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos import cgroups_v1_pb2, cgroups_v2_pb2
from kata_protos import task_types_pb2 as types
from kata_protos import task_v2_pb2 as task
from kata_py.sandbox.events import Topic
from kata_py.ttrpc.errors import StatusError
from tests import bundle
from tests.functional.sandbox.conftest import Output
from tests.tasks import CALL_TIMEOUT, RESOURCES, Tasks, until

pytestmark = pytest.mark.root

MakeOutput = Callable[[str], Awaitable[Output]]


@contextmanager
def stdin(tasks: Tasks, name: str = "stdin") -> Iterator[tuple[str, int]]:
    """A manager's stdin fifo: its path, and a descriptor to write to."""
    path = tasks.top / name
    os.mkfifo(path, 0o700)
    descriptor = os.open(path, os.O_RDWR)  # as containerd: it blocks nowhere
    try:
        yield str(path), descriptor
    finally:
        os.close(descriptor)


async def write(descriptor: int, data: bytes) -> None:
    def all_of_it() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    await asyncio.to_thread(all_of_it)


async def close_io(tasks: Tasks, exec_id: str = "") -> None:
    await tasks.client.CloseIO(task.CloseIORequest(id="c1", exec_id=exec_id, stdin=True))


async def test_a_container_runs_to_its_end_and_leaves_nothing(tasks: Tasks, output: MakeOutput) -> None:
    out, err = await output("out"), await output("err")
    await tasks.run(args=["sh", "-c", "echo hello; echo oops >&2; exit 3"], stdout=out.path, stderr=err.path)
    assert (await tasks.wait()).exit_status == 3
    assert await out.read() == b"hello\n"
    assert await err.read() == b"oops\n"
    await tasks.delete()
    await tasks.event(Topic.DELETE)
    assert tasks.topics == [Topic.CREATE, Topic.START, Topic.EXIT, Topic.DELETE]
    assert tasks.leftovers() == []


async def test_exit_codes_come_through(tasks: Tasks) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")
    for status in (0, 1, 2, 42, 126, 127, 128, 137, 254, 255):
        await tasks.exec(f"e{status}", ["sh", "-c", f"exit {status}"], stdout="")
        await tasks.start(exec_id=f"e{status}")
        assert (await tasks.wait(exec_id=f"e{status}")).exit_status == status
        await tasks.delete(exec_id=f"e{status}")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
async def test_a_process_that_a_signal_ends_tells_128_and_the_signal(tasks: Tasks, number: int) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")
    await tasks.exec("e1", ["sh", "-c", "sleep 600"], stdout="")
    await tasks.start(exec_id="e1")
    await tasks.kill(number, exec_id="e1")
    assert (await tasks.wait(exec_id="e1")).exit_status == 128 + number
    await tasks.kill(signal.SIGKILL)
    assert (await tasks.wait()).exit_status == 137


async def test_execs_see_the_containers_files_and_keep_their_output_apart(tasks: Tasks, output: MakeOutput) -> None:
    await tasks.run(args=["sh", "-c", "echo 1 > /tmp/mark; exec sleep 600"], stdout="")
    outs = []
    for number in range(5):
        outs.append(await output(f"out{number}"))
        command = f"while ! [ -e /tmp/mark ]; do :; done; cat /tmp/mark; echo {number}"
        await tasks.exec(f"e{number}", ["sh", "-c", command], stdout=outs[-1].path)
    await asyncio.gather(*(tasks.start(exec_id=f"e{number}") for number in range(5)))
    for number, out in enumerate(outs):
        assert await out.read() == b"1\n%d\n" % number
        assert (await tasks.wait(exec_id=f"e{number}")).exit_status == 0


async def test_stdin_is_read_to_the_end_that_close_io_brings(tasks: Tasks, output: MakeOutput) -> None:
    out = await output("out")
    with stdin(tasks) as (path, descriptor):
        await tasks.run(args=["cat"], stdin=path, stdout=out.path)
        await write(descriptor, b"one ")
        await write(descriptor, b"two")
        await close_io(tasks)
        assert (await tasks.wait()).exit_status == 0
    assert await out.read() == b"one two"


async def test_without_stdin_a_reader_of_it_ends(tasks: Tasks) -> None:
    await tasks.run(args=["cat"], stdout="")
    assert (await tasks.wait()).exit_status == 0


async def test_16_mib_come_out_and_go_in_at_once(tasks: Tasks, output: MakeOutput) -> None:
    data = os.urandom(1 << 20) * 16
    out = await output("out")
    with stdin(tasks) as (path, descriptor):
        await tasks.run(args=["cat"], stdin=path, stdout=out.path)
        reading = asyncio.create_task(out.read())
        await write(descriptor, data)
        await close_io(tasks)
        got = await reading
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert (await tasks.wait()).exit_status == 0


async def test_a_terminal_has_a_size_and_one_stream(tasks: Tasks, output: MakeOutput) -> None:
    out = await output("out")
    with stdin(tasks) as (path, descriptor):
        await tasks.run(args=["sh", "-c", "read _; stty size >&2"], stdin=path, stdout=out.path, terminal=True)
        await tasks.client.ResizePty(task.ResizePtyRequest(id="c1", width=132, height=50))
        await write(descriptor, b"go\n")
        assert (await tasks.wait()).exit_status == 0
    assert (await out.read()).replace(b"\r", b"").splitlines()[-1] == b"50 132"


async def test_a_terminal_exec_gets_the_size_that_was_given_before_its_start(tasks: Tasks, output: MakeOutput) -> None:
    out = await output("out")
    await tasks.run(args=["sleep", "600"], stdout="")
    script = 'until [ "$(stty size 2>/dev/null)" ]; do :; done; stty size'
    await tasks.exec("e1", ["sh", "-c", script], stdout=out.path, terminal=True)
    await tasks.client.ResizePty(task.ResizePtyRequest(id="c1", exec_id="e1", width=90, height=33))
    await tasks.start(exec_id="e1")
    assert (await out.read()).strip() == b"33 90"


async def test_two_waiters_and_one_before_the_start_get_the_same(tasks: Tasks) -> None:
    await tasks.create(args=["sh", "-c", "exit 9"], stdout="")
    waiters = [asyncio.create_task(tasks.wait()) for _ in range(2)]
    await tasks.start()
    first, second = await asyncio.gather(*waiters)
    assert first.exit_status == 9
    assert first == second == await tasks.wait()


async def test_a_background_child_that_holds_the_output_does_not_hold_the_exit(
    tasks: Tasks, output: MakeOutput
) -> None:
    out = await output("out")
    await tasks.run(args=["sleep", "600"], stdout="")
    await tasks.exec("e1", ["sh", "-c", "sleep 600 & echo started"], stdout=out.path)
    began = time.monotonic()
    await tasks.start(exec_id="e1")
    assert (await tasks.wait(exec_id="e1")).exit_status == 0
    assert time.monotonic() - began < 5
    assert await out.read() == b"started\n"


async def test_a_reader_that_stalls_does_not_stop_kill(tasks: Tasks) -> None:
    path = tasks.top / "stalled"
    os.mkfifo(path, 0o700)
    held = os.open(path, os.O_RDWR)  # open, and never read
    try:
        await tasks.run(args=["yes"], stdout=str(path))
        await until(lambda: _queued(held) >= 60_000)
        began = time.monotonic()
        await tasks.kill(signal.SIGKILL)
        assert (await tasks.wait()).exit_status == 137
        assert time.monotonic() - began < 12
    finally:
        os.close(held)


def _queued(descriptor: int) -> int:
    import array
    import fcntl
    import termios

    size = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, size)
    return size[0]


async def test_volumes_are_seen_and_read_only_ones_are_not_written(tasks: Tasks, output: MakeOutput) -> None:
    data, secret = tasks.top / "data", tasks.top / "secret"
    for directory in (data, secret):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    mounts = [
        {"destination": "/data", "source": str(data), "type": "bind", "options": ["rbind", "rw"]},
        {"destination": "/secret", "source": str(secret), "type": "bind", "options": ["rbind", "ro"]},
    ]
    command = "cat /data/file /secret/file; echo x > /data/new; echo x > /secret/new && exit 1; exit 0"
    spec = bundle.spec("c1", "rootfs", bundle.process(["sh", "-c", command]), mounts=mounts)
    out = await output("out")
    await tasks.create(spec=spec, stdout=out.path)
    await tasks.start()
    assert (await tasks.wait()).exit_status == 0
    assert await out.read() == b"datasecret"
    assert (data / "new").read_text() == "x\n"
    assert not (secret / "new").exists()


async def test_what_a_container_uses_are_numbers(tasks: Tasks) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")
    answer = (await tasks.client.Stats(task.StatsRequest(id="c1"))).stats
    kinds = {m.DESCRIPTOR.full_name: m for m in (cgroups_v1_pb2.Metrics, cgroups_v2_pb2.Metrics)}
    metrics = kinds[answer.type_url].FromString(answer.value)
    assert all(metrics.HasField(name) for name in ("cpu", "memory", "pids"))
    assert metrics.pids.current >= 1


async def test_a_paused_container_is_told_as_such_until_it_is_resumed(tasks: Tasks) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")

    await tasks.client.Pause(task.PauseRequest(id="c1"), timeout=CALL_TIMEOUT)
    assert (await tasks.state()).status == types.PAUSED
    await tasks.exec("x", stdout="")
    with pytest.raises(StatusError, match="paused"):
        await tasks.start(exec_id="x")
    await tasks.client.Resume(task.ResumeRequest(id="c1"), timeout=CALL_TIMEOUT)

    assert (await tasks.state()).status == types.RUNNING


async def test_limits_are_changed_while_a_container_runs(tasks: Tasks) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")
    limits = {"memory": {"limit": 64 << 20}}
    resources = AnyMessage(type_url=RESOURCES, value=json.dumps(limits).encode())

    await tasks.client.Update(task.UpdateTaskRequest(id="c1", resources=resources), timeout=CALL_TIMEOUT)

    answer = (await tasks.client.Stats(task.StatsRequest(id="c1"), timeout=CALL_TIMEOUT)).stats
    if answer.type_url == "io.containerd.cgroups.v1.Metrics":
        assert cgroups_v1_pb2.Metrics.FromString(answer.value).memory.usage.limit == 64 << 20
    else:
        assert cgroups_v2_pb2.Metrics.FromString(answer.value).memory.usage_limit == 64 << 20


async def test_a_command_that_is_not_there_is_told_and_leaves_nothing(tasks: Tasks) -> None:
    with pytest.raises(StatusError, match="/no/such/command"):
        await tasks.run(args=["/no/such/command"], stdout="")
    if tasks.records():  # the agent's choice: it is told at Create, or at Start
        await tasks.delete()
    assert tasks.leftovers() == []


@pytest.mark.alone
async def test_while_the_agent_is_stopped_state_answers_within_50_ms(tasks: Tasks) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")
    agent = _agent_of(tasks)
    os.kill(agent, signal.SIGSTOP)
    try:
        hung = asyncio.create_task(tasks.kill(signal.SIGTERM))
        for _ in range(20):
            began = time.monotonic()
            assert (await tasks.state()).status == types.RUNNING
            assert time.monotonic() - began < 0.05
        hung.cancel()
    finally:
        os.kill(agent, signal.SIGCONT)


@pytest.mark.parametrize("victim", ["machine", "agent"])
async def test_when_machine_or_agent_is_killed_all_ends_with_255_and_nothing_is_left(tasks: Tasks, victim: str) -> None:
    pid = (await tasks.create(args=["sleep", "600"], stdout="")).pid
    await tasks.start()
    await tasks.exec("e1", ["sleep", "600"], stdout="")
    await tasks.start(exec_id="e1")
    waiters = [asyncio.create_task(tasks.wait(exec_id=exec_id)) for exec_id in ("", "e1")]
    await tasks.state()
    os.kill(pid if victim == "machine" else _agent_of(tasks), signal.SIGKILL)
    assert [answer.exit_status for answer in await asyncio.gather(*waiters)] == [255, 255]
    assert (await tasks.state()).status == types.STOPPED
    await tasks.delete()
    assert tasks.leftovers() == []
    assert tasks.shut_downs == []


def _agent_of(tasks: Tasks) -> int:
    """The first process of the sandbox's pid namespace: the child of the process that holds it."""
    [kill] = [undo for undo in tasks.record().undo if undo.kind == "kill-process"]
    holder: int = kill.pid  # type: ignore[union-attr]  # the one with a pid
    [child] = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    return int(child)


async def test_200_short_execs_lose_no_output(tasks: Tasks, output: MakeOutput) -> None:
    await tasks.run(args=["sleep", "600"], stdout="")

    async def one(number: int) -> None:
        exec_id = f"e{number}"
        out = await output(exec_id)
        await tasks.exec(exec_id, ["echo", f"output of {number}"], stdout=out.path)
        await tasks.start(exec_id=exec_id)
        assert (await tasks.wait(exec_id=exec_id)).exit_status == 0
        assert await out.read() == f"output of {number}\n".encode()
        await tasks.delete(exec_id=exec_id)

    for batch in range(0, 200, 4):
        await asyncio.gather(*(one(number) for number in range(batch, batch + 4)))


async def test_a_start_cancelled_at_any_time_leaves_nothing(tasks: Tasks) -> None:
    for milliseconds in range(0, 500, 50):
        request = tasks.request(f"c{milliseconds}", ["sleep", "600"], stdout="")
        with suppress(StatusError):
            await tasks.client.Create(request, timeout=max(milliseconds, 1) / 1000)
        with suppress(StatusError):  # of one that is undone there is nothing to delete
            await tasks.delete(request.id)
        await until(tasks.service.vacant.is_set)
        assert tasks.leftovers() == []
