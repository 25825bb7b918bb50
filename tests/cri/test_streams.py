"""Streams: a command's and a container's own, through the manager's streaming server."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import RUNNING, Container, Pod, Pods
from tests.cri.streams import STDERR, STDOUT

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


def sized(rows: int, columns: int) -> str:
    """A script that waits until its terminal has that size, and says so."""
    return (
        f'until [ "$(stty size 2>/dev/null)" = "{rows} {columns}" ]; do sleep 0.01; done; echo it is {rows}x{columns}'
    )


@ON_BOTH
async def test_a_streamed_command_shows_both_outputs_and_its_exit_code(shared: Container) -> None:
    async with shared.executing("sh", "-c", "echo out; echo err >&2; exit 6") as session:
        assert await session.ended() == 6
        assert (session.received[STDOUT], session.received[STDERR]) == (b"out\n", b"err\n")


async def test_a_streamed_command_that_succeeds_says_so(shared: Container) -> None:
    async with shared.executing("true") as session:
        assert await session.ended() == 0


async def test_a_streamed_output_is_complete(shared: Container) -> None:
    size = 8 << 20
    async with shared.executing("sh", "-c", f"yes | head -c {size}") as session:
        assert await session.ended() == 0
        assert hashlib.sha256(session.received[STDOUT]).digest() == hashlib.sha256(b"y\n" * (size // 2)).digest()


@ON_BOTH
async def test_what_is_typed_reaches_the_command(shared: Container) -> None:
    async with shared.executing("sh", "-c", "read name; echo hello $name; read more; exit 4", stdin=True) as session:
        await session.send(b"world\n")
        await session.until(b"hello world\n")
        await session.send(b"\n")
        assert await session.ended() == 4


async def test_the_end_of_the_connection_ends_the_commands_input_after_its_last_byte(shared: Container) -> None:
    data = os.urandom(1 << 20)
    async with shared.executing("sh", "-c", "sha256sum > /tmp/sum; mv /tmp/sum /tmp/done", stdin=True) as session:
        for start in range(0, len(data), 1 << 15):
            await session.send(data[start : start + (1 << 15)])
    got = await shared.sh("until [ -e /tmp/done ]; do sleep 0.01; done; cat /tmp/done; rm /tmp/done")
    assert got.split()[0] == hashlib.sha256(data).hexdigest()


@ON_BOTH
async def test_a_command_on_a_terminal_sees_one_and_its_sizes(shared: Container) -> None:
    script = f"tty; {sized(40, 100)}; {sized(25, 80)}; exit 8"
    async with shared.executing("sh", "-c", script, stdin=True, tty=True) as session:
        await session.resize(40, 100)
        await session.until(b"it is 40x100")
        await session.resize(25, 80)
        assert await session.ended() == 8
        assert b"/dev/pts/" in session.received[STDOUT]
        assert b"it is 25x80" in session.received[STDOUT]


async def test_an_interrupt_typed_on_a_terminal_reaches_the_command(shared: Container) -> None:
    script = "trap 'echo interrupted; exit 130' INT; echo ready; while :; do sleep 0.05; done"
    async with shared.executing("sh", "-c", script, stdin=True, tty=True) as session:
        await session.until(b"ready")
        await session.send(b"\x03")
        assert await session.ended() == 130
        assert b"interrupted" in session.received[STDOUT]


async def test_a_shell_on_a_terminal_can_be_spoken_with(shared: Container) -> None:
    async with shared.executing("sh", stdin=True, tty=True) as session:
        await session.send(b"echo $((6 * 7))\n")
        await session.until(b"42\r\n")
        await session.send(b"exit 3\n")
        assert await session.ended() == 3


async def test_a_missing_streamed_command_is_named(shared: Container) -> None:
    async with shared.executing("no-such-command") as session:
        with pytest.raises(AssertionError, match="no-such-command"):
            await session.ended()


@ON_BOTH
async def test_an_attached_caller_sees_what_the_container_writes(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "read go; echo out; echo err >&2; exit 2", stdin=True)
        async with container.attached(stdin=True) as session:
            await session.send(b"go\n")
            await session.ended()
            assert (session.received[STDOUT], session.received[STDERR]) == (b"out\n", b"err\n")
        assert (await container.exited()).exit_code == 2
        assert container.output() == b"out\n"


async def test_two_attached_callers_see_the_same(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "while :; do echo tick; sleep 0.05; done")
    async with container.attached() as one, container.attached() as other:
        await one.until(b"tick\ntick\n")
        await other.until(b"tick\ntick\n")
    await container.remove()


async def test_input_that_is_taken_once_ends_with_its_giver(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "cat; echo the end", stdin=True, stdin_once=True)
    async with container.attached(stdin=True) as session:
        await session.send(b"a line\n")
        await session.until(b"a line\n")
    assert (await container.exited()).exit_code == 0
    assert container.output() == b"a line\nthe end\n"
    await container.remove()


async def test_input_that_is_taken_again_outlives_its_giver(shared_pod: Pod) -> None:
    container = await shared_pod.run("cat", stdin=True)
    for line in (b"first\n", b"second\n"):
        async with container.attached(stdin=True) as session:
            await session.send(line)
            await session.until(line)
    assert (await container.status()).state == RUNNING
    await container.remove()


async def test_a_container_without_input_reads_its_end(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("sh", "-c", "cat; echo no input")
    assert outcome.stdout == b"no input\n"


@ON_BOTH
async def test_a_container_on_a_terminal_can_be_attached_resized_and_typed_to(pods: Pods) -> None:
    async with pods.run() as pod:
        script = f"tty; read go; {sized(50, 120)}; exit 5"
        container = await pod.run("sh", "-c", script, stdin=True, tty=True)
        async with container.attached(stdin=True, tty=True) as session:
            await session.resize(50, 120)
            await session.send(b"go\n")
            await session.until(b"it is 50x120")
        assert (await container.exited()).exit_code == 5
        assert b"/dev/pts/" in container.output() or b"/dev/console" in container.output()


async def test_what_has_ended_cannot_be_attached(shared_pod: Pod) -> None:
    container = await shared_pod.run("true")
    await container.exited()
    with pytest.raises(CriError, match=r"(?i)not running|state"):
        async with container.attached():
            pass
    await container.remove()
