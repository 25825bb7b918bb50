"""CRI-O's operations on pods in machines, by the sequences of calls that the real one sends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kata_protos.task_types_pb2 import Status
from kata_py.resource import process
from kata_py.sandbox import record as records
from kata_py.ttrpc.errors import ConnectionClosed
from tests.crio import PREFIX, RECORDED, TIMED_OUT, Crio
from tests.crio_calls import CrioError, Sent
from tests.crio_container import Container, ExecResult
from tests.faults import in_stage, kill_when
from tests.integration.conftest import ON_NAMESPACES, left_behind
from tests.tasks import until
from tools.footprint import Footprint

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

PARALLEL = 8
READ_AND_TELL = 'while read x; do [ "$x" = end ] && echo last && exit 9; echo got $x; done'


def recorded() -> list[Sent]:
    """What the real CRI-O sent, in the order in which it arrived."""
    sent = []
    for line in (RECORDED / "calls.jsonl").read_text().splitlines():
        content = json.loads(line)
        if "start" in content:
            request = {name: content[name] for name in ("argv", "env", "cwd", "bundle")}
            sent.append(Sent(0, "", request))
        else:
            sent.append(Sent(content["connection"], content["method"], content["request"]))
    return sent


def renamed(sent: list[Sent], crio: Crio, names: dict[str, str]) -> list[Sent]:
    """What was sent, with the recording's names, and without the runtime_config_path that its handler had not."""
    execs: dict[str, str] = {}
    result = []
    for each in sent:
        if exec_id := each.request.get("exec_id"):
            execs.setdefault(exec_id, f"<exec-{len(execs) + 1}>")
        text = json.dumps({name: value for name, value in each.request.items() if name != "options"})
        text = re.sub(re.escape(str(crio.fifos)) + r"/io/[^/]+", "<fifos>", text)
        for real, name in {**names, **execs}.items():
            text = text.replace(real, name)
        result.append(Sent(each.connection, each.method, json.loads(text)))
    return result


def in_one_order(sent: list[Sent]) -> list[Sent]:
    """The same, with a Wait and a Kill that CRI-O sends at the same time in one order."""
    result = list(sent)
    for first in range(len(result) - 1):
        pair = result[first : first + 2]
        if [each.method for each in pair] == ["Wait", "Kill"]:
            result[first : first + 2] = reversed(pair)
    return result


async def test_a_pods_whole_life_goes_by_the_calls_of_a_real_crio(crio: Crio) -> None:
    pod, app = "p" * 64, "a" * 64
    sandbox = crio.prepare_sandbox(pod)
    await crio.create(sandbox)
    assert process.start_time(sandbox.state.pid) == sandbox.state.start_time
    await crio.start(sandbox)
    assert sandbox.state.status == Status.RUNNING

    container = crio.prepare_container(pod, app, limited=True)
    await crio.create(container)
    assert (await crio.status(container)).status == Status.CREATED
    await crio.start(container)
    assert container.state.status == Status.RUNNING
    assert process.start_time(container.state.pid) == container.state.start_time
    await container.output.until(b"hi\n")

    ran = await crio.exec_sync(container, "/bin/date")
    assert (ran.exit_code, ran.stderr) == (0, b"")
    assert ran.stdout.endswith(b"\n")
    await crio.status(container)
    streamed = await crio.exec(container, "/bin/date")
    assert await streamed.wait() == 0
    streamed.io.remove()
    await streamed.delete()
    assert await crio.exec_sync(container, "/bin/sleep", "5", timeout=20) == ExecResult(0, b"")

    before = await crio.stats(container)
    after = await crio.stats(container)
    assert 0 < before[0] <= after[0]
    assert min(after) > 0
    await crio.update(container, {"memory": {"limit": 268435456, "swap": 268435456}, "cpu": {}})

    # The sandbox's process is PID 1 of both: without a handler SIGTERM would do nothing, so the agent makes it SIGKILL.
    for each, looks, code in ((container, 2, 143), (sandbox, 1, 137)):
        await crio.stop(each)
        assert (each.state.status, each.state.exit_code) == (Status.STOPPED, code)
        ended = each.state.finished
        for _ in range(looks):
            assert (await crio.status(each)).finished == ended
        assert (crio.exits / each.id).exists()
        deleted = await crio.delete(each)
        assert deleted is not None
        assert (deleted.exit_status, deleted.exited_at.ToNanoseconds()) == (code, ended)
        assert not each.bundle.exists()

    places = {str(place): name for name, place in crio.places.items()}
    assert in_one_order(renamed(crio.sent, crio, {**places, pod: "<pod>", app: "<app>"})) == in_one_order(recorded())


@ON_NAMESPACES
async def test_a_pods_containers_end_at_the_same_time_and_its_infra_container_last(crio: Crio) -> None:
    async with crio.pod("stopped") as sandbox:
        ran = [await crio.run("stopped", f"c{number}") for number in range(3)]
        await crio.stop_pod(sandbox)
        assert [each.state.exit_code for each in ran] == [143, 143, 143]
        assert max(each.state.finished for each in ran) <= sandbox.state.finished


async def test_no_output_of_short_execs_is_lost_though_their_fifos_are_closed_when_wait_answers(
    crio: Crio, driver: str
) -> None:
    count = 1000 if driver == "namespace" else 30
    async with crio.pod("outputs"):
        container = await crio.run("outputs", "writer")
        gate = asyncio.Semaphore(PARALLEL)

        async def run(number: int) -> ExecResult:
            async with gate:
                return await crio.exec_sync(container, "sh", "-c", f"echo run {number}; echo end {number} >&2; exit 3")

        results = await asyncio.gather(*(run(number) for number in range(count)))
        expected = [ExecResult(3, f"run {n}\n".encode(), f"end {n}\n".encode()) for n in range(count)]
        assert [number for number in range(count) if results[number] != expected[number]] == []


@ON_NAMESPACES
async def test_a_large_output_is_whole_though_its_fifo_is_closed_when_wait_answers(crio: Crio) -> None:
    async with crio.pod("large"):
        container = await crio.run("large", "writer")
        result = await crio.exec_sync(container, "sh", "-c", "yes kata | head -c 8388608; echo end")
        assert (len(result.stdout), result.stdout[-4:]) == ((8 << 20) + 4, b"end\n")


@ON_NAMESPACES
async def test_a_streamed_exec_gets_its_stdin_to_the_end_and_a_terminal_its_size(crio: Crio) -> None:
    async with crio.pod("streamed"):
        container = await crio.run("streamed", "app")
        copied = await crio.exec(container, "cat", stdin=True)
        await copied.io.write(b"x" * 100_000)
        copied.io.close_stdin()
        await copied.close_stdin()
        assert await copied.wait() == 0
        copied.io.remove()
        assert copied.io.output() == b"x" * 100_000
        await copied.delete()
        terminal = await crio.exec(container, "sh", "-c", "read x; stty size", stdin=True, terminal=True)
        await terminal.resize(132, 43)
        await terminal.io.write(b"\n")
        assert await terminal.wait() == 0
        terminal.io.remove()
        assert b"43 132" in terminal.io.output()
        await terminal.delete()


@ON_NAMESPACES
async def test_a_container_with_a_terminal_has_a_stderr_that_nobody_opens(crio: Crio) -> None:
    async with crio.pod("terminal"):
        container = await crio.run(
            "terminal", "app", "sh", "-c", "echo out; echo err >&2; read x", stdin=True, tty=True
        )
        await container.output.until(b"out\r\nerr\r\n")
        await container.output.write(b"\n")
        async with asyncio.timeout(20):
            assert container.waiter is not None
            await container.waiter
        assert container.state.exit_code == 0


async def test_crio_comes_back_and_finds_state_output_stdin_and_exit(crio: Crio) -> None:
    async with crio.pod("restarted") as sandbox:
        container = await crio.run("restarted", "app", "sh", "-c", READ_AND_TELL, stdin=True)
        await container.output.write(b"one\n")
        await container.output.until(b"got one\n")
        before = [replace(await crio.status(each)) for each in (sandbox, container)]
        running = await crio.exec(container, "sh", "-c", "sleep 1000")
        await crio.restart()
        running.io.close()
        assert [await crio.status(each) for each in (sandbox, container)] == before
        await container.output.write(b"two\n")
        await container.output.until(b"got two\n")
        assert await crio.exec_sync(container, "echo", "works") == ExecResult(0, b"works\n")
        assert await crio.is_alive(container)
        await container.output.write(b"end\n")
        await ended(crio, container)
        assert container.state.exit_code == 9
        assert not await crio.is_alive(container)
        assert await crio.delete(container) is not None


@ON_NAMESPACES
async def test_crio_finds_what_a_container_wrote_and_how_it_ended_while_it_was_away(crio: Crio) -> None:
    async with crio.pod("away"):
        container = await crio.run("away", "app", "sh", "-c", f"{READ_AND_TELL}", stdin=True)
        await container.output.write(b"end\n")
        await crio.restart()
        await ended(crio, container)
        await container.output.until(b"last\n")
        assert container.state.exit_code == 9
        assert await crio.delete(container) is not None


async def test_nothing_fails_though_the_machine_is_dead_and_the_shim_stays_until_all_is_removed(crio: Crio) -> None:
    async with crio.pod("dead") as sandbox:
        container = await crio.run("dead", "app")
        running = await crio.exec(container, "sleep", "1000")
        shim = pid_of_shim(sandbox)
        os.kill(sandbox.state.pid, signal.SIGKILL)
        assert await running.wait() == 255
        running.io.remove()
        await running.delete()
        for each in (container, sandbox):
            assert each.waiter is not None
            async with asyncio.timeout(30):
                await each.waiter
            assert (each.state.status, each.state.exit_code) == (Status.STOPPED, 255)
            assert (crio.exits / each.id).exists()
            assert not await crio.is_alive(each)
        await crio.stop_pod(sandbox)
        for each in (container, sandbox):
            await crio.kill(each, signal.SIGKILL)
            assert process.start_time(shim) is not None
            deleted = await crio.delete(each)
            assert deleted is not None
            assert (deleted.exit_status, deleted.exited_at.ToNanoseconds()) == (255, each.state.finished)
        await gone(shim)


async def test_a_container_that_does_not_heed_its_stop_signal_is_killed_when_its_time_is_up(crio: Crio) -> None:
    async with crio.pod("stubborn"):
        container = await crio.run("stubborn", "app", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
        await container.output.until(b"up\n")
        began = time.monotonic()
        await crio.stop(container, 0.5)
        assert time.monotonic() - began > 0.5
        assert container.state.exit_code == 137
        heeding = await crio.run(
            "stubborn", "heeding", "sh", "-c", "trap 'exit 5' INT; echo up; while :; do sleep 0.1; done"
        )
        await heeding.output.until(b"up\n")
        await crio.stop(heeding, 20, number=signal.SIGINT)
        assert heeding.state.exit_code == 5


@ON_NAMESPACES
async def test_a_paused_container_goes_on_when_it_is_to_stop(crio: Crio) -> None:
    async with crio.pod("paused"):
        container = await crio.run("paused", "app")
        await crio.pause(container)
        assert (await crio.status(container)).status == Status.PAUSED
        await crio.stop(container)
        assert container.state.exit_code == 143


async def test_a_container_that_wanted_too_much_memory_is_told_apart_by_a_file(crio: Crio) -> None:
    async with crio.pod("hungry"):
        container = await crio.run("hungry", "app", "sh", "-c", "x=x; while :; do x=$x$x; done", limited=True)
        await ended(crio, container)
        assert (container.state.exit_code, container.state.oom_killed) == (137, True)
        other = await crio.run("hungry", "other")
        await crio.stop(other, 0)
        assert (other.state.exit_code, other.state.oom_killed) == (137, False)


async def test_an_exec_that_takes_too_long_is_killed_and_leaves_what_it_wrote(crio: Crio) -> None:
    async with crio.pod("slow"):
        container = await crio.run("slow", "app")
        script = "trap '' TERM; echo began; sleep 1000"
        assert await crio.exec_sync(container, "sh", "-c", script, timeout=1.5) == ExecResult(TIMED_OUT, b"began\n")
        await crio.stop(container, 0)


@ON_NAMESPACES
async def test_a_log_that_nobody_reads_any_more_hurts_nobody(crio: Crio) -> None:
    async with crio.pod("logged") as sandbox:
        assert sandbox.log is not None
        assert b'msg="serving at' in sandbox.log.lines
        sandbox.log.close()
        for number in range(3):
            container = await crio.run("logged", f"c{number}")
            assert await crio.exec_sync(container, "echo", "works") == ExecResult(0, b"works\n")
            await crio.stop(container)


async def test_a_crashed_shim_takes_its_machine_along_and_the_next_pods_shim_removes_the_rest(crio: Crio) -> None:
    async with crio.pod("crashed") as sandbox:
        container = await crio.run("crashed", "app")
        before = await crio.status(container)
        os.kill(pid_of_shim(sandbox), signal.SIGKILL)
        for each in (container, sandbox):
            with pytest.raises(ConnectionClosed):  # which CRI-O's Kill does not forgive
                await crio.stop(each)
            assert not (crio.exits / each.id).exists()
        assert await crio.status(container) == before  # CRI-O knows no better
        await gone(sandbox.state.pid)
        assert [await crio.delete(each) for each in (container, sandbox)] == [None, None]
    assert (records.ROOT / "crashed").exists()  # CRI-O has no call to remove it with
    async with crio.pod("next"):
        await until(lambda: not (records.ROOT / "crashed").exists())


FAILURES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a program": ("no-such-program", lambda spec: spec["process"].update(args=["/no-such-program"])),
    "a root": ("no-such-root", lambda spec: spec["root"].update(path="/no-such-root")),
    "a mount": (
        "no-such-file",
        lambda spec: spec["mounts"].append({"destination": "/x", "source": "/no-such-file", "options": ["rbind"]}),
    ),
    "a user": ("additionalGids", lambda spec: spec["process"]["user"].update(additionalGids="none")),
    "a pod": ("no-such-pod", lambda spec: spec["annotations"].update({f"{PREFIX}SandboxID": "no-such-pod"})),
    "a type": ("ContainerType", lambda spec: spec["annotations"].update({f"{PREFIX}ContainerType": "strange"})),
}


@ON_NAMESPACES
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_container_that_cannot_be_created_leaves_nothing_in_its_pod(crio: Crio, failure: str) -> None:
    text, spoil = FAILURES[failure]
    async with crio.pod("whole") as sandbox:
        await crio.delete(await created(crio, "whole", "first"))  # what all containers of a pod share is there now
        before = Footprint.take()
        container = crio.prepare_container("whole", "spoilt")
        spoil(container.spec)
        crio.write_spec(container)
        with pytest.raises(CrioError, match=text):
            await crio.create(container)
        await crio.forget(container)
        assert left_behind(before) == []
        again = await crio.run("whole", "spoilt")  # its id is free
        assert (await crio.status(sandbox)).status == Status.RUNNING
        assert await crio.exec_sync(again, "echo", "works") == ExecResult(0, b"works\n")


@pytest.mark.parametrize("failure", [each for each in FAILURES if each != "a pod"])
async def test_a_pod_that_cannot_be_created_leaves_nothing(crio: Crio, failure: str) -> None:
    text, spoil = FAILURES[failure]
    sandbox = crio.prepare_sandbox("spoilt")
    spoil(sandbox.spec)
    crio.write_spec(sandbox)
    with pytest.raises(CrioError, match=text):
        await crio.create(sandbox)
    await crio.forget(sandbox)


async def test_a_pod_whose_creation_takes_too_long_leaves_nothing(crio: Crio, driver: str) -> None:
    sandbox = crio.prepare_sandbox("slow")
    crio.create_timeout = 0.1 if driver == "namespace" else 1.0
    with pytest.raises(CrioError, match="timeout"):
        await crio.create(sandbox)
    assert [each.method for each in crio.sent] == ["", "Create", "Delete", "Delete", "Shutdown"]
    await crio.forget(sandbox)


async def test_a_pod_whose_machine_dies_during_creation_leaves_nothing(crio: Crio, driver: str) -> None:
    sandbox = crio.prepare_sandbox("dying")
    victim = "agent" if driver == "namespace" else "qemu"
    killing = asyncio.create_task(kill_when("dying", victim, in_stage("agent")))
    with pytest.raises(CrioError, match="signal 9"):
        await crio.create(sandbox)
    await killing
    await crio.forget(sandbox)


def pid_of_shim(container: Container) -> int:
    """The daemon that serves a container."""
    return int((container.bundle.parents[1] / container.pod / "userdata" / "shim.pid").read_text())


async def created(crio: Crio, pod: str, id: str) -> Container:
    """A container that was never started."""
    container = crio.prepare_container(pod, id)
    await crio.create(container)
    return container


async def ended(crio: Crio, container: Container) -> None:
    """Ask for a container's state, as the kubelet does again and again, until it has ended."""
    async with asyncio.timeout(30):
        while (await crio.status(container)).status != Status.STOPPED:  # noqa: ASYNC110 CRI-O has no event
            await asyncio.sleep(0.02)


async def gone(pid: int) -> None:
    """Wait for a process's end."""
    async with asyncio.timeout(20):
        while process.start_time(pid) is not None:  # noqa: ASYNC110 no child of ours
            await asyncio.sleep(0.01)
