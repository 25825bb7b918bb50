"""Processes beside a container's first one: exit codes, signals, streams, terminals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time

import pytest

from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.manager import Container

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20
PARALLEL = 8


async def each(count: int, run) -> list:  # type: ignore[no-untyped-def]
    """Run `run(0..count-1)`, a few at a time, and return the results in order."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one(number: int) -> object:
        async with gate:
            return await run(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(count)]
    return [task.result() for task in tasks]


@pytest.mark.timeout(300)
async def test_every_exit_code_comes_back_as_it_was(running: Container) -> None:
    results = await each(256, lambda number: running.run("sh", "-c", f"exit {number}", timeout=120))
    assert [status for status, _ in results] == list(range(256))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1, signal.SIGTERM])
async def test_death_by_a_signal_is_128_and_its_number(running: Container, number: int) -> None:
    process = await running.exec("sh", "-c", "echo ready; exec sleep 1000")
    await process.start()
    await process.io.until(b"ready\n")
    await process.kill(number)
    assert (await process.wait()).status == 128 + number
    await process.delete()


@pytest.mark.timeout(900)
async def test_no_output_of_many_short_runs_is_lost(running: Container, driver: str) -> None:
    count = 2000 if driver == "namespace" else 50

    async def run(number: int) -> bytes:
        status, output = await running.run("sh", "-c", f"echo run {number}; echo end {number}", timeout=120)
        assert status == 0
        return output

    results = await each(count, run)
    expected = [f"run {number}\nend {number}\n".encode() for number in range(count)]
    assert hashlib.sha256(b"".join(results)).hexdigest() == hashlib.sha256(b"".join(expected)).hexdigest()


@pytest.mark.timeout(300)
async def test_64_mib_come_through_stdout_whole(running: Container) -> None:
    status, output = await running.run("sh", "-c", "yes kata | head -c 67108864", timeout=240)
    assert status == 0
    assert len(output) == 64 * MIB
    assert hashlib.sha256(output).digest() == hashlib.sha256((b"kata\n" * (64 * MIB // 5 + 1))[: 64 * MIB]).digest()


@pytest.mark.timeout(600)
async def test_64_mib_go_through_stdin_and_come_back_at_the_same_time(running: Container) -> None:
    data = os.urandom(MIB) * 64
    process = await running.exec("cat", stdin=True)
    await process.start()
    async with asyncio.timeout(500):
        await process.io.write(data)
        await process.close_stdin()
        assert (await process.wait(timeout=500)).status == 0
    output = await process.io.ended()
    assert hashlib.sha256(output).digest() == hashlib.sha256(data).digest()
    await process.delete()


async def test_stdout_and_stderr_stay_apart(running: Container) -> None:
    process = await running.exec("sh", "-c", "echo out; echo err >&2")
    await process.start()
    await process.wait()
    assert await process.io.ended("stdout") == b"out\n"
    assert await process.io.ended("stderr") == b"err\n"
    await process.delete()


async def test_stdin_ends_when_closed_and_not_before(running: Container) -> None:
    process = await running.exec("sh", "-c", "while read -r line; do echo got $line; done; echo end", stdin=True)
    await process.start()
    await process.io.write(b"one\n")
    await process.io.until(b"got one\n")
    assert b"end" not in process.io.output()
    await process.io.write(b"two\n")
    await process.close_stdin()  # what lies in the fifo still goes through
    assert (await process.wait()).status == 0
    assert await process.io.ended() == b"got one\ngot two\nend\n"
    await process.delete()


async def test_a_process_without_stdin_reads_its_end(running: Container) -> None:
    assert await running.run("sh", "-c", "cat; echo done") == (0, b"done\n")


async def test_a_reader_that_stalls_does_not_stop_kill(running: Container) -> None:
    process = await running.exec("sh", "-c", "echo first; exec yes")
    await process.start()
    await process.io.until(b"first\n")
    process.io.pause()
    began = time.monotonic()
    await process.kill(signal.SIGKILL, timeout=10)
    assert time.monotonic() - began < 5
    assert (await process.wait(timeout=60)).status == 137
    process.io.resume()
    await process.delete()


async def test_a_terminal_has_the_size_it_was_given(running: Container) -> None:
    process = await running.exec("sh", "-c", "stty size; read x; stty size; tty", stdin=True, terminal=True)
    await process.start()
    await process.io.until(b"\n")
    await process.resize(width=132, height=43)
    await process.io.write(b"\n")
    assert (await process.wait()).status == 0
    output = await process.io.ended()
    assert b"43 132" in output
    assert b"/dev/pts/" in output
    await process.delete()


async def test_a_background_child_that_holds_stdout_does_not_keep_the_exec_alive(running: Container) -> None:
    process = await running.exec("sh", "-c", "sleep 1000 & echo $!")
    await process.start()
    assert (await process.wait(timeout=20)).status == 0
    child = process.io.output().decode().strip()
    await process.delete()
    assert await running.run("kill", child) == (0, b"")


async def test_two_waiters_get_the_same_exit(running: Container) -> None:
    process = await running.exec("sh", "-c", "read x; exit 7", stdin=True)
    await process.start()
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(process.wait()) for _ in range(2)]
        await process.io.write(b"\n")
    exits = [waiter.result() for waiter in waiters]
    assert exits[0].status == 7
    assert exits == [exits[0], await process.wait()]
    assert (await process.delete()) == exits[0]


async def test_output_and_exit_of_an_exec_wait_for_a_manager_that_restarts(running: Container) -> None:
    process = await running.exec("sh", "-c", "echo before; read x; echo meanwhile; exit 3", stdin=True)
    await process.start()
    await process.io.until(b"before\n")
    await process.io.write(b"\n")
    process.io.detach()
    await running.disconnect()
    await process.io.open()
    await running.connect()
    assert (await process.wait()).status == 3
    assert await process.io.ended() == b"before\nmeanwhile\n"
    await process.delete()


async def test_an_unknown_command_is_named_in_the_error(running: Container) -> None:
    process = await running.exec("no-such-command")
    with pytest.raises(StatusError, match="no-such-command"):
        await process.start()
    await process.delete()


async def test_signal_zero_tells_the_living_from_the_dead(running: Container) -> None:
    process = await running.exec("sleep", "1000")
    await process.start()
    await process.kill(0)
    await process.kill(signal.SIGKILL)
    await process.wait()
    with pytest.raises(StatusError) as caught:
        await process.kill(0)
    assert caught.value.code == Code.NOT_FOUND
    await process.delete()


async def test_an_exec_id_is_taken_once(running: Container) -> None:
    process = await running.exec("true", exec_id="twice")
    with pytest.raises(StatusError) as caught:
        await running.exec("true", exec_id="twice", fifos="again")
    assert caught.value.code == Code.ALREADY_EXISTS
    await process.delete()


async def test_a_user_and_an_environment_arrive(running: Container) -> None:
    status, output = await running.run("sh", "-c", "id -u; echo $WHO; pwd", uid=1000, env=["WHO=me"], cwd="/tmp")
    assert (status, output) == (0, b"1000\nme\n/tmp\n")
