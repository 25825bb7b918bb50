"""A container's log: whole, in order, and in the form that Kubernetes reads."""

from __future__ import annotations

import hashlib

import pytest

from tests.cri import log
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Pod, Pods, attempts

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

LINE_MAX = 16384  # bytes, containerd's max_container_log_line_size


@ON_BOTH
async def test_each_line_is_logged_with_its_stream(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "echo one; echo two >&2; echo three")
        await container.exited()
        entries = log.entries(container.log_path)
        assert [e.content for e in entries if e.stream == "stdout"] == [b"one\n", b"three\n"]
        assert [e.content for e in entries if e.stream == "stderr"] == [b"two\n"]
        assert not any(entry.is_partial for entry in entries)


@ON_BOTH
async def test_a_log_is_complete_to_the_last_byte_when_the_container_has_ended(pods: Pods) -> None:
    lines = 50_000
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", f"seq {lines}")
        await container.exited(60)
        expected = "".join(f"{number}\n" for number in range(1, lines + 1)).encode()
        got = container.output()
        assert len(got) == len(expected)
        assert got == expected


async def test_eight_mebibytes_of_two_streams_are_logged_whole(shared_pod: Pod) -> None:
    size, width = 8 << 20, 512
    script = f"yes {'o' * (width - 1)} | head -c {size} & yes {'e' * (width - 1)} | head -c {size} >&2; wait"
    outcome = await shared_pod.outcome("sh", "-c", script)
    for got, letter in ((outcome.stdout, b"o"), (outcome.stderr, b"e")):
        line = letter * (width - 1) + b"\n"
        assert hashlib.sha256(got).digest() == hashlib.sha256(line * (size // width)).digest()


async def test_a_long_line_is_logged_in_parts(shared_pod: Pod) -> None:
    length = 3 * LINE_MAX + 100
    container = await shared_pod.run("sh", "-c", f"head -c {length} /dev/zero | tr '\\0' x; echo")
    await container.exited()
    entries = log.entries(container.log_path)
    assert [entry.is_partial for entry in entries] == [True, True, True, False]
    assert b"".join(entry.content for entry in entries) == b"x" * length + b"\n"
    await container.remove()


async def test_a_last_line_without_an_end_is_logged(shared_pod: Pod) -> None:
    container = await shared_pod.run("printf", "no end")
    await container.exited()
    assert container.output().rstrip(b"\n") == b"no end"
    await container.remove()


async def test_a_container_that_writes_nothing_has_an_empty_log(shared_pod: Pod) -> None:
    container = await shared_pod.run("true")
    await container.exited()
    assert container.log_path.read_bytes() == b""
    await container.remove()


async def test_what_is_written_right_before_the_end_is_logged(shared_pod: Pod) -> None:
    for number in range(10):
        outcome = await shared_pod.outcome("sh", "-c", f"echo last words {number}")
        assert outcome.stdout == f"last words {number}\n".encode()


async def test_a_killed_container_has_logged_what_it_wrote(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "seq 10000; while :; do sleep 0.1; done")
    await container.wrote(b"10000\n")
    await container.stop(0)
    assert len(container.output().splitlines()) == 10_000
    await container.remove()


async def test_the_times_in_a_log_do_not_go_back(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done")
    await container.exited()
    times = [entry.at for entry in log.entries(container.log_path)]
    assert len(times) == 5
    assert times == sorted(times)
    await container.remove()


async def test_a_rotated_log_goes_on_in_a_new_file(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "echo before; until [ -e /tmp/go ]; do sleep 0.01; done; echo after")
    await container.wrote(b"before\n")
    rotated = container.log_path.with_suffix(".log.1")
    container.log_path.rename(rotated)
    await container.reopen_log()
    await container.sh("touch /tmp/go")
    await container.exited()
    assert log.content(rotated) == b"before\n"
    assert container.output() == b"after\n"
    await container.remove()


async def test_a_terminals_log_is_one_stream(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "echo out; echo err >&2", tty=True)
    await container.exited()
    assert container.output().replace(b"\r\n", b"\n") == b"out\nerr\n"
    assert container.output("stderr") == b""
    await container.remove()


async def test_each_attempt_has_a_log_of_its_own(shared_pod: Pod) -> None:
    paths = set()
    for attempt in range(2):
        container = await shared_pod.run("echo", str(attempt), name="logged", attempt=attempt)
        await container.exited()
        assert container.output() == f"{attempt}\n".encode()
        paths.add(container.log_path)
        await container.remove()
    assert len(paths) == 2


async def test_a_busy_log_keeps_the_order_of_its_stream(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; sleep 1000")
    async for _ in attempts(30, "the last line is missing"):
        if b"1999\n" in container.output():
            break
    assert container.output() == "".join(f"{n}\n" for n in range(2000)).encode()
    await container.remove()
