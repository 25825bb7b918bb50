"""A guest that does its worst to a whole shim: the manager is answered, the shim stays small and calm, the node whole.

`unit/sandbox/test_hostile_agent.py` has the agent's calls one by one; here they come through the Task service of a
daemon that its launcher started, and what is measured is that process.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from kata_protos import agent_pb2
from kata_py.http import client as http
from kata_py.sandbox import oom, record
from kata_py.sandbox.process import LOST
from kata_py.shim import guest_rate
from kata_py.ttrpc import frames
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.frames import DATA, MESSAGE_LENGTH_MAX, RESPONSE
from kata_py.ttrpc.status import Code
from tests.hostile import Answering, Call, Guest, listening, response
from tests.leftovers import left_behind
from tests.manager import Container, Manager, Process
from tests.tasks import until
from tools.footprint import Footprint

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

GROWTH_MAX = 64 << 20  # bytes that a shim may grow by, whatever its guest says
FLOOD = 16 * MESSAGE_LENGTH_MAX  # bytes
WITHIN = 15.0  # seconds until the manager is answered
SHORT = 1.0  # seconds that the manager waits for what is never answered
MESSAGE_MAX = 8 << 10  # bytes of an error that a manager may be told
TICKS = os.sysconf("SC_CLK_TCK")

CONFIGURATION = """\
[hypervisor.outside]
kernel_params = "{directory}"
[agent.kata]
dial_timeout = 1
[runtime]
create_container_timeout = 1
"""


# What is said instead of an answer.


async def oversized(call: Call) -> None:
    piece = bytes(MESSAGE_LENGTH_MAX)
    await call.say(frames.HEADER.pack(FLOOD, call.stream_id, RESPONSE, 0), *[piece] * (FLOOD // len(piece)))


async def endless(call: Call) -> None:
    """As much as fits into frames that answer nobody, of every kind, and then nonsense as the answer."""
    for kind in (RESPONSE, DATA, 0x77):
        piece = frames.encode(kind, call.stream_id + 1000, 0, bytes(1 << 20))
        await call.say(*[piece] * (FLOOD // len(piece) // 3))
    await call.answer(b"\xff")


async def made_of_crumbs(call: Call) -> None:
    """An envelope of as many parts as fit into a frame."""
    await call.say(frames.encode(RESPONSE, call.stream_id, 0, b"\x0a\x02\x1a\x00" * (MESSAGE_LENGTH_MAX // 4)))


async def made_of_parts(call: Call) -> None:
    """Messages in a message, as many as fit: each is two bytes here, and a hundred in memory."""
    await call.answer(b"\x12\x00" * (MESSAGE_LENGTH_MAX // 2 - 32))


async def of_another_type(call: Call) -> None:
    await call.answer(b"\x0a\xff\xff\xff\xff\x0f")


async def with_data(call: Call) -> None:
    await call.say(frames.encode(DATA, call.stream_id, 0, bytes(1 << 20)), response(call.stream_id))


async def eloquent(call: Call) -> None:
    """An error of megabytes, which would clear the terminal of whoever reads it."""
    await call.answer(b"", Code.INTERNAL, "\x1b[2J" + "no " * (1 << 20))


async def of_no_known_status(call: Call) -> None:
    await call.answer(b"", -(1 << 31), "")


async def silent(call: Call) -> None:
    pass


async def slow(call: Call) -> None:
    await call.say(frames.HEADER.pack(1 << 20, call.stream_id, RESPONSE, 0), *[b"x"] * 1000, pause=1)


async def garbled(call: Call) -> None:
    await call.say(b"\x00\x3f" + os.urandom(1 << 20))


async def hung_up(call: Call) -> None:
    call.writer.write(response(call.stream_id, bytes(100))[:20])
    call.writer.close()


LIES = [oversized, endless, made_of_crumbs, made_of_parts, of_another_type, with_data, eloquent, of_no_known_status]
FOR_EVER = [silent, slow, garbled]  # nothing is heard on this connection any more


# What is measured.


def memory(pid: int, key: str) -> int:
    """Bytes, by a key of proc(5)'s status."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def processor_time(pid: int) -> float:
    """Seconds, of the process alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def calm(pid: int) -> None:
    """Wait until a process uses less than a tenth of a processor."""
    since = time.monotonic(), processor_time(pid)

    def is_calm() -> bool:
        nonlocal since
        now = time.monotonic(), processor_time(pid)
        if now[0] - since[0] < 0.2:
            return False
        before, since = since, now
        return now[1] - before[1] < 0.1 * (now[0] - before[0])

    await until(is_calm, WITHIN)


@contextmanager
def bounded(pid: int) -> Iterator[None]:
    """A process's memory stays within its bound, at every moment."""
    idle = memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): from now on the peak is counted anew
    yield
    grown = memory(pid, "VmHWM") - idle
    assert grown < GROWTH_MAX, f"grown by {grown >> 20} MiB"


def strangers(before: Footprint, id: str) -> list[str]:
    """What is on the machine that was not there before and does not belong to a sandbox."""
    return [line for line in left_behind(before) if id not in line and "containerd-shim-kata" not in line]


@asynccontextmanager
async def harmless(container: Container) -> AsyncIterator[None]:
    """Whatever happens meanwhile does no harm to a shim, or to the node."""
    before = Footprint.take()
    with bounded(container.shim_pid):
        yield
        assert strangers(before, container.id) == []
    await calm(container.shim_pid)


# The sandboxes.


@asynccontextmanager
async def guest_of(launcher: Path, directory: Path, rootfs: Path) -> AsyncIterator[tuple[Guest, Manager]]:
    directory.mkdir()
    config = directory / "configuration.toml"
    config.write_text(CONFIGURATION.format(directory=directory))
    async with listening(directory) as guest:
        yield guest, Manager(launcher, directory, config, rootfs)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(launcher: Path, short_tmp: Path, rootfs: Path) -> AsyncIterator[tuple[Guest, Manager]]:
    """A guest, and the manager of its shims."""
    async with guest_of(launcher, short_tmp / "outside", rootfs) as made:
        yield made


@pytest.fixture
def guest(world: tuple[Guest, Manager]) -> Iterator[Guest]:
    """It, which is honest again afterwards."""
    guest, _ = world
    yield guest
    guest.answers.clear()
    guest.log = guest.console = None


@pytest.fixture(scope="module")
def manager(world: tuple[Guest, Manager]) -> Manager:
    return world[1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def victim(world: tuple[Guest, Manager]) -> AsyncIterator[Container]:
    """A running sandbox that has done once what tests do with it, so that its shim has loaded what it needs."""
    _, manager = world
    async with manager.container("victim", "sleep", stdin=True) as container:
        await container.start()
        await asks(container)
        yield container


async def figures(container: Container) -> bytes:
    """What the management API tells of a sandbox."""
    reply = await http.get(
        str(record.ROOT / container.id / "shim-monitor.sock"), "/metrics", timeout=WITHIN, limit=FLOOD
    )
    assert reply.status == 200
    return reply.body


async def started(container: Container, *, timeout: float = WITHIN) -> Process:
    process = await container.exec("true")
    try:
        await process.start(timeout=timeout)
    except BaseException:
        await process.delete()
        raise
    return process


async def asks(container: Container) -> None:
    """Have a container's manager ask for what needs the guest."""
    process = await started(container)
    await process.kill()
    await process.wait()
    await process.delete()
    await container.stats()
    await figures(container)


async def each_with_its_guest(
    lies: list[Answering],
    meet: Callable[[Answering, Guest, Container], Awaitable[None]],
    launcher: Path,
    short_tmp: Path,
    rootfs: Path,
    *,
    create: bool = True,
) -> None:
    """Meet guests that lie differently, each with a shim of its own, at once: what is waited for are deadlines."""

    async def one(lie: Answering) -> None:
        name = f"{meet.__name__}-{lie.__name__}"
        async with (
            guest_of(launcher, short_tmp / name, rootfs) as (guest, manager),
            manager.container(name, "sleep", create=create) as container,
        ):
            with bounded(container.shim_pid):
                await meet(lie, guest, container)
            await calm(container.shim_pid)

    async with asyncio.TaskGroup() as group:
        for lie in lies:
            group.create_task(one(lie))


async def given_up(container: Container) -> StatusError:
    """Ask for a container until time is up; returns what is told. An earlier one that is still undone is waited for."""
    async with asyncio.timeout(WITHIN):
        while True:
            with pytest.raises(StatusError) as caught:
                await container.create(timeout=2 * SHORT)
            if caught.value.code is not Code.ALREADY_EXISTS:
                return caught.value


async def answered(call: Awaitable[object]) -> None:
    """A call is answered within bounds, if with an error, then with one that can be told."""
    message = ""
    async with asyncio.timeout(WITHIN):
        try:
            await call
        except StatusError as error:
            message = error.message
    assert len(message) < MESSAGE_MAX
    assert "\x1b" not in message


CALLS: dict[str, Callable[[Container], Awaitable[object]]] = {
    "StatsContainer": lambda container: container.stats(),
    "ExecProcess": started,
    "SignalProcess": lambda container: container.kill(10),
    "GetMetrics": figures,
}


# In a sandbox that runs.


@pytest.mark.parametrize("lie", LIES)
async def test_a_manager_is_answered_whatever_its_guest_says(guest: Guest, victim: Container, lie: Answering) -> None:
    async with harmless(victim):
        for method, call in CALLS.items():
            guest.answers = {method: lie}
            await answered(call(victim))
            assert method in guest.calls
        guest.answers.clear()
        await asks(victim)  # honest again, it serves as before


async def test_a_guest_that_does_not_answer_holds_up_nobody_else(guest: Guest, victim: Container) -> None:
    async with harmless(victim):
        guest.answers = dict.fromkeys(CALLS, silent)
        waiting = [asyncio.create_task(victim.stats(timeout=SHORT)), asyncio.create_task(figures(victim))]
        waiting.append(asyncio.create_task(victim.kill(10, timeout=SHORT)))
        await until(lambda: {"StatsContainer", "GetMetrics", "SignalProcess"} <= set(guest.calls))
        await victim.state(timeout=SHORT)
        given_up, told, _ = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(given_up, StatusError)
        assert given_up.code is Code.DEADLINE_EXCEEDED
        assert isinstance(told, bytes)
        assert b"kata_shim_threads" in told  # what is known without the guest


@pytest.mark.parametrize("status", [-1, 70_000, 1 << 30])
async def test_an_exit_status_is_one_that_a_process_can_have(guest: Guest, victim: Container, status: int) -> None:
    async def lies(call: Call) -> None:
        await call.answer(agent_pb2.WaitProcessResponse(status=status).SerializeToString())

    async def ended(call: Call) -> None:
        await call.answer()

    guest.answers = {"WaitProcess": lies, "ReadStdout": ended, "ReadStderr": ended}
    process = await started(victim)
    before = time.time_ns()
    exit = await process.wait()
    assert 0 <= exit.status <= LOST
    assert abs(exit.exited_at - before) < WITHIN * 1e9  # the host's own clock
    await process.delete()


@pytest.mark.parametrize("lie", LIES)
async def test_an_output_that_lies_ends_and_the_exit_is_told(guest: Guest, victim: Container, lie: Answering) -> None:
    async with harmless(victim):
        guest.answers = {"ReadStdout": lie, "ReadStderr": lie, "WaitProcess": lie}
        process = await started(victim)
        async with asyncio.timeout(WITHIN):
            assert 0 <= (await process.wait()).status <= LOST
        await process.delete()


async def test_an_output_without_end_that_nobody_reads_is_kept_within_bounds(guest: Guest, victim: Container) -> None:
    async def gushes(call: Call) -> None:
        await call.answer(agent_pb2.ReadStreamResponse(data=bytes(1 << 20)).SerializeToString())

    async with harmless(victim):
        guest.answers = {"ReadStdout": gushes, "ReadStderr": gushes}
        process = await victim.exec("yes")
        process.io.pause()
        await process.start()
        await until(lambda: guest.calls.count("ReadStdout") > 1)
        await calm(victim.shim_pid)  # it has stopped to ask
        guest.answers.clear()
        process.io.resume()
        await process.kill()
        assert (await process.wait()).status == 128 + 9
        await process.delete()


async def test_news_of_memory_without_end_are_told_one_after_the_other(guest: Guest, victim: Container) -> None:
    async def lies(call: Call) -> None:
        await call.answer(agent_pb2.OOMEvent(container_id=victim.id).SerializeToString())

    async with harmless(victim):
        guest.answers = {"GetOOMEvent": lies}
        guest.agent.ooms.put_nowait(victim.id)
        began, asked = time.monotonic(), guest.calls.count("GetOOMEvent")
        await until(lambda: guest.calls.count("GetOOMEvent") > asked + 2)
        await calm(victim.shim_pid)
        count = guest.calls.count("GetOOMEvent") - asked
        assert count <= (time.monotonic() - began) / oom.SPACING + 2
        guest.answers.clear()


async def test_absurd_figures_are_only_figures(guest: Guest, victim: Container) -> None:
    most = (1 << 64) - 1
    cpu = agent_pb2.CpuStats(cpu_usage=agent_pb2.CpuUsage(total_usage=most, percpu_usage=[most] * 4000))
    usage = agent_pb2.MemoryData(usage=most, limit=0, failcnt=most)
    memory = agent_pb2.MemoryStats(usage=usage, stats={"anon": most, "": 1, "\x1b\u2028" * 1000: most})
    disks = [agent_pb2.BlkioStatsEntry(op=op, major=most, minor=most, value=most) for op in ("READ", "no" * 1000, "")]
    absurd = agent_pb2.StatsContainerResponse(
        cgroup_stats=agent_pb2.CgroupStats(
            cpu_stats=cpu, memory_stats=memory, blkio_stats=agent_pb2.BlkioStats(io_service_bytes_recursive=disks)
        ),
        network_stats=[agent_pb2.NetworkStats(name="x" * 1000, rx_bytes=most)],
    )

    async def lies(call: Call) -> None:
        await call.answer(absurd.SerializeToString())

    async with harmless(victim):
        guest.answers = {"StatsContainer": lies}
        assert (await victim.usage()).memory == most
        for _ in range(2):
            assert b"kata_shim_threads" in await figures(victim)


async def test_figures_without_number_are_cut(guest: Guest, victim: Container) -> None:
    text = "".join(f"kata_guest_x{number} 1\n" for number in range(40_000)) + "kata_shim_threads 1000\n"

    async def lies(call: Call) -> None:
        await call.answer(agent_pb2.Metrics(metrics=text).SerializeToString())

    async with harmless(victim):
        guest.answers = {"GetMetrics": lies}
        told = await figures(victim)
        assert told.count(b"\nkata_guest_") <= 10_000
        assert b"kata_shim_threads 1000" not in told


# At its beginning, and at its end.


async def test_no_guest_that_lies_at_the_beginning_becomes_a_sandbox(guest: Guest, manager: Manager) -> None:
    """One shim, asked again and again: each failure is told, and leaves nothing."""
    async with manager.container("stillborn", "true", create=False) as container:
        with suppress(StatusError):  # load what a creation needs
            guest.answers = {"CreateSandbox": of_another_type}
            await container.create()
        async with harmless(container):
            for method in ("Check", "CreateSandbox", "CreateContainer"):
                for lie in (*LIES, hung_up):
                    guest.answers = {method: lie}
                    async with asyncio.timeout(WITHIN):
                        with pytest.raises(StatusError) as caught:
                            await container.create()
                    assert len(caught.value.message) < MESSAGE_MAX
                    assert not (record.ROOT / container.id).exists()
        kept = Path("/run/vc/failures/stillborn.json")
        assert kept.stat().st_size < 1 << 18


async def test_a_guest_that_never_says_what_it_has_begun_to_say_is_given_up(
    launcher: Path, short_tmp: Path, rootfs: Path
) -> None:
    async def heard(lie: Answering, guest: Guest, container: Container) -> None:
        for method in ("Check", "SetGuestDateTime", "CreateContainer"):
            guest.answers = {method: lie}
            assert (await given_up(container)).code is Code.DEADLINE_EXCEEDED
        await until(lambda: not (record.ROOT / container.id).exists())

    await each_with_its_guest(FOR_EVER, heard, launcher, short_tmp, rootfs, create=False)


async def test_a_guest_that_does_not_let_go_is_ended(launcher: Path, short_tmp: Path, rootfs: Path) -> None:
    async def ended(lie: Answering, guest: Guest, container: Container) -> None:
        await container.start()
        guest.answers = dict.fromkeys(("SignalProcess", "DestroySandbox"), lie)
        async with asyncio.timeout(WITHIN):
            assert (await container.delete()).status in (LOST, 128 + 9)
        assert not (record.ROOT / container.id).exists()

    await each_with_its_guest([*FOR_EVER, hung_up, oversized, endless], ended, launcher, short_tmp, rootfs)


async def test_a_guest_that_talks_without_end_is_told_its_share(guest: Guest, manager: Manager) -> None:
    """By its log and its console from the beginning, in short lines and in one that does not end."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        line = b'{"msg": "\\u001b[2J", "level": "INFO", "subsystem": {"a": []}, "time": 1}\n'
        while True:
            for piece in (line * 1000, b"x" * (64 << 10), b"\x00\xff\n" * 10_000):
                writer.write(piece)
                await writer.drain()

    guest.log = guest.console = talk
    async with manager.container("talker", "sleep", create=False) as container:
        lines = 0

        def count(fd: int) -> None:
            nonlocal lines
            with suppress(BlockingIOError):
                lines += os.read(fd, 1 << 16).count(b"\n")

        log = container.bundle / "log"
        os.mkfifo(log)
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(fd, count, fd)
        began = time.monotonic()
        try:
            with bounded(container.shim_pid):
                await container.create()
                await container.start()
                await until(lambda: lines > guest_rate.BURST / 2, WITHIN)
                for _ in range(50):
                    await container.state(timeout=SHORT)
                await container.kill()
                await container.delete()
        finally:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        share = guest_rate.BURST + guest_rate.RATE * (time.monotonic() - began)
        assert lines < share + 200  # the shim's own come on top
