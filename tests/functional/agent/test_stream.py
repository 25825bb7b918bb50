"""Standard streams: sizes, ends, back-pressure, terminals."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import time

import pytest

from kata_protos.agent_ttrpc import AgentClient
from kata_protos.oci_pb2 import Box
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import Pod

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _write_all(pod: Pod, data: bytes, exec_id: str = "", container_id: str = "ctr") -> None:
    for start in range(0, len(data), MEBIBYTE):
        piece = data[start : start + MEBIBYTE]
        assert await pod.write(container_id, piece, exec_id) == len(piece)
    await pod.write(container_id, b"", exec_id)


async def test_64_mib_go_in_and_come_out_at_once(pod: Pod) -> None:
    data = random.Random(1).randbytes(64 * MEBIBYTE)
    await pod.run("ctr", "cat")

    async with asyncio.timeout(60):
        _, echoed = await asyncio.gather(_write_all(pod, data), pod.read_all("ctr"))

    assert _digest(echoed) == _digest(data)
    assert await pod.wait("ctr") == 0


async def test_64_mib_of_stdin_arrive_whole(pod: Pod) -> None:
    data = random.Random(2).randbytes(64 * MEBIBYTE)
    await pod.run("ctr", "sha256sum")

    await _write_all(pod, data)

    assert (await pod.outcome("ctr")).stdout.split()[0].decode() == _digest(data)


async def test_64_mib_of_stdout_leave_whole(pod: Pod) -> None:
    script = f"yes 0123456789abcde | head -c {64 * MEBIBYTE}"
    await pod.run("ctr", "sh", "-c", script)

    assert _digest(await pod.read_all("ctr")) == _digest(b"0123456789abcde\n" * (4 * MEBIBYTE))


async def test_stdout_and_stderr_stay_apart(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "for i in $(seq 2000); do echo out $i; echo err $i >&2; done")

    outcome = await pod.outcome("ctr")

    assert outcome.stdout == b"".join(b"out %d\n" % i for i in range(1, 2001))
    assert outcome.stderr == b"".join(b"err %d\n" % i for i in range(1, 2001))


async def test_a_read_gives_no_more_than_asked(pod: Pod) -> None:
    await pod.run("ctr", "echo", "abcdef")

    assert [await pod.read("ctr", limit=3) for _ in range(2)] == [b"abc", b"def"]


async def test_a_read_of_nothing_is_no_end_of_the_stream(pod: Pod) -> None:
    await pod.run("ctr", "echo", "abc")

    with pytest.raises(StatusError, match="a read of no bytes"):
        await pod.read("ctr", limit=0)

    assert await pod.read("ctr") == b"abc\n"


@pytest.mark.parametrize("way", ["an empty write", "a call"])
async def test_stdin_ends_by(pod: Pod, way: str) -> None:
    await pod.run("ctr", "wc", "-c")
    await pod.write("ctr", b"12345")

    if way == "a call":
        await pod.close_stdin("ctr")
    else:
        await pod.write("ctr", b"")

    assert (await pod.outcome("ctr")).stdout == b"5\n"


async def test_after_its_end_stdin_takes_nothing(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.close_stdin("ctr")
    await pod.close_stdin("ctr")

    with pytest.raises(StatusError, match="Cannot get writer") as refusal:
        await pod.write("ctr", b"more")

    assert refusal.value.code is Code.INTERNAL


async def test_a_process_that_does_not_read_stops_no_other_call(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    writing = asyncio.create_task(pod.write("ctr", bytes(MEBIBYTE)))
    await asyncio.sleep(0)  # the next call is sent after this one

    assert (await pod.shell("ctr", "echo fine")).stdout == b"fine\n"
    assert not writing.done()
    await pod.signal("ctr", signal.SIGKILL)

    assert await pod.wait("ctr") == 137
    with pytest.raises(StatusError, match="Cannot get writer"):
        await writing


async def test_a_reader_that_stalls_does_not_stop_kill(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "head -c 50000 /dev/zero; echo written >&2; exec yes")
    assert await pod.read("ctr", stderr=True) == b"written\n"  # and nobody reads the other output

    await pod.signal("ctr", signal.SIGKILL)

    assert await pod.wait("ctr") == 137
    assert (await pod.read_all("ctr")).startswith(bytes(50000))


async def test_output_can_be_read_long_after_the_end(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "echo kept; echo too >&2")
    assert await pod.wait("ctr") == 0

    outcome = await pod.outcome("ctr")

    assert (outcome.stdout, outcome.stderr) == (b"kept\n", b"too\n")
    assert await pod.read("ctr") == b""


async def test_a_background_child_that_holds_stdout_keeps_no_one_waiting(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    began = time.monotonic()

    outcome = await pod.shell("ctr", "head -c 50000 /dev/zero; sleep 1000 & exit 3")

    assert (outcome.code, len(outcome.stdout)) == (3, 50000)
    assert time.monotonic() - began < 3


async def test_a_background_child_that_never_stops_writing_keeps_no_one_waiting(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    outcome = await pod.shell("ctr", "echo first; yes & exit 0")

    assert outcome.stdout.startswith(b"first\n")
    assert outcome.code == 0


async def test_a_terminal_has_one_output_and_the_size_it_is_given(pod: Pod) -> None:
    await pod.run("ctr", "sh", Terminal=True, ConsoleSize=Box(Height=5, Width=6))
    await pod.resize("ctr", 40, 132)

    await pod.write("ctr", b"stty size; tty; echo to stderr >&2; exit 8\n")

    outcome = await pod.outcome("ctr")
    assert outcome.code == 8
    assert b"40 132\r\n" in outcome.stdout
    assert b"\r\nto stderr\r\n" in outcome.stdout
    assert outcome.stderr == b""


async def test_a_new_size_is_told_to_the_process(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    script = "trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done"
    await pod.exec("ctr", "x", "sh", "-c", script, Terminal=True)
    await pod.read_until(b"up", "ctr", "x")

    await pod.resize("ctr", 11, 22, "x")

    assert b"11 22" in await pod.read_all("ctr", "x")
    assert await pod.wait("ctr", "x") == 0


async def test_control_c_on_a_terminal_interrupts(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sh", "-c", "echo up; exec sleep 1000", Terminal=True)
    await pod.read_until(b"up", "ctr", "x")

    await pod.write("ctr", b"\x03", "x")

    assert await pod.wait("ctr", "x") == 130


async def test_closing_a_terminals_stdin_does_not_end_its_output(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    script = 'echo up; until [ "$(stty size 2>/dev/null)" ]; do :; done; stty size; echo done'
    await pod.exec("ctr", "x", "sh", "-c", script, Terminal=True)
    await pod.read_until(b"up", "ctr", "x")

    await pod.close_stdin("ctr", "x")
    await pod.resize("ctr", 7, 8, "x")

    assert (await pod.read_all("ctr", "x")).endswith(b"7 8\r\ndone\r\n")


async def test_a_size_without_a_terminal_is_refused(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError, match="no tty") as refusal:
        await pod.resize("ctr", 1, 1)

    assert refusal.value.code is Code.UNAVAILABLE


async def test_a_process_may_open_its_stdout_anew(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "echo one >/dev/stdout; echo two >/proc/self/fd/1")

    assert (await pod.outcome("ctr")).stdout == b"one\ntwo\n"


async def test_a_lost_connection_takes_no_output_with_it(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "read line; echo $line")
    async with connect(pod.vm.agent, timeout=5) as other:
        lost = Pod(pod.vm, other, AgentClient(other), pod.share, pod.rootfs)
        reading = asyncio.create_task(lost.read("ctr"))
        await asyncio.sleep(0)  # the next call is sent after this one
        await lost.signal("ctr", 0)  # answered, so the read has arrived too
    await asyncio.wait([reading])

    await pod.write("ctr", b"still mine\n")

    assert (await pod.outcome("ctr")).stdout == b"still mine\n"
    assert reading.exception() is not None
