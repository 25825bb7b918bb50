"""Processes: exit codes, signals, waiters, ids, zombies."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kata_protos import oci_pb2 as oci
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import CAPABILITIES, Pod
from tests.tasks import until

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -KILL $$", 137)])
async def test_an_exec_ends_with_its_code_or_128_and_the_signal(pod: Pod, script: str, code: int) -> None:
    await pod.run("ctr", "sleep", "1000")

    assert (await pod.shell("ctr", script)).code == code


async def test_all_who_wait_are_told_also_late_ones(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sh", "-c", "read line; exit 9")
    waiters = [asyncio.create_task(pod.wait("ctr", "x")) for _ in range(2)]
    await asyncio.sleep(0)

    await pod.write("ctr", b"\n", "x")

    assert await asyncio.gather(*waiters) == [9, 9]
    assert await pod.wait("ctr", "x") == 9


async def test_signal_zero_asks_and_a_dead_process_is_no_error(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "true")
    await pod.wait("ctr", "x")

    for exec_id in ("", "x"):
        await pod.signal("ctr", 0, exec_id)
    await pod.signal("ctr", signal.SIGTERM, "x")


async def test_a_number_that_is_no_signal_is_an_error(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError) as refusal:
        await pod.signal("ctr", 999)

    assert refusal.value.code is Code.INTERNAL


async def test_sigterm_to_a_first_process_without_a_handler_kills_it(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    await pod.signal("ctr", signal.SIGTERM)

    assert await pod.wait("ctr") == 137


async def test_sigterm_to_a_first_process_with_a_handler_is_its_own_affair(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done")
    await pod.read_until(b"up", "ctr")

    await pod.signal("ctr", signal.SIGTERM)

    assert await pod.read_until(b"bye", "ctr")
    assert await pod.wait("ctr") == 4


async def test_sigterm_to_an_exec_ends_it_with_143(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sleep", "1000")

    await pod.signal("ctr", signal.SIGTERM, "x")

    assert await pod.wait("ctr", "x") == 143
    await pod.signal("ctr", 0)


async def test_killing_the_container_reaches_execs_and_their_children(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "sh", "-c", "setsid sleep 1000 & echo up; wait")
    await pod.read_until(b"up", "ctr", "x")

    await pod.signal("ctr", signal.SIGKILL)

    assert await asyncio.gather(pod.wait("ctr"), pod.wait("ctr", "x")) == [137, 137]
    await until(lambda: not pod.processes())


async def test_killing_a_container_whose_pids_are_shared_spares_the_others(pod: Pod) -> None:
    await pod.run("one", "cat")
    pod.unpack("two")
    await pod.calls.CreateContainer(pod.request("two", "sh", "-c", "sleep 1000 & wait", share_pids=True))
    await pod.start("two")

    await pod.signal("two", signal.SIGKILL)

    assert await pod.wait("two") == 137
    await pod.write("one", b"alive")
    assert await pod.read("one") == b"alive"
    await until(lambda: len(_alive(pod)) == 1)  # orphans are for the namespace's first process to collect


async def test_an_exec_gets_user_directory_environment_and_capabilities(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    script = "id -u; id -G; pwd; echo $COLOUR; grep CapBnd /proc/self/status"

    await pod.exec(
        "ctr", "x", "sh", "-c", script,
        User=oci.User(UID=1000, GID=1001, AdditionalGids=[2002]), Cwd="/tmp", Env=["PATH=/bin", "COLOUR=red"],
        Capabilities=None,
    )  # fmt: skip

    lines = (await pod.outcome("ctr", "x")).stdout.split(b"\n")
    assert lines[:4] == [b"1000", b"1001 2002", b"/tmp", b"red"]
    assert int(lines[4].split()[1], 16) == sum(1 << number for number in CAPABILITIES.values())


async def test_a_missing_program_of_an_exec_is_named_and_its_id_free(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError, match='executable file "no-such" not found in \\$PATH'):
        await pod.exec("ctr", "x", "no-such")

    assert (await pod.shell("ctr", "exit 5", "x")).code == 5


async def test_an_exec_id_is_taken_while_it_runs_and_free_once_waited_for(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.exec("ctr", "x", "cat")

    with pytest.raises(StatusError, match="process x of container ctr already exists") as refusal:
        await pod.exec("ctr", "x", "true")
    assert refusal.value.code is Code.ALREADY_EXISTS
    await pod.close_stdin("ctr", "x")
    assert (await pod.outcome("ctr", "x")).code == 0

    assert (await pod.shell("ctr", "exit 6", "x")).code == 6


async def test_two_execs_of_one_id_at_once_make_one_process(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    results = await asyncio.gather(*(pod.exec("ctr", "x", "cat") for _ in range(4)), return_exceptions=True)

    assert [type(result) for result in results].count(StatusError) == 3
    assert len(pod.processes()) == 2


async def test_a_container_that_has_ended_takes_no_exec(pod: Pod) -> None:
    await pod.run("ctr", "true")
    await pod.wait("ctr")

    with pytest.raises(StatusError) as refusal:
        await pod.exec("ctr", "x", "true")

    assert refusal.value.code is Code.INTERNAL


async def test_many_short_execs_at_once_lose_no_output_and_no_code(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    async def one(number: int) -> None:
        outcome = await pod.shell("ctr", f"echo {number}; echo {number} >&2; exit {number % 256}", f"x{number}")
        assert (outcome.code, outcome.stdout, outcome.stderr) == (number % 256, *[f"{number}\n".encode()] * 2)

    for first in range(0, 300, 20):
        await asyncio.gather(*(one(number) for number in range(first, first + 20)))


async def test_orphans_of_containers_leave_no_zombies(pod: Pod) -> None:
    await pod.run("pause", "sleep", "1000")
    pod.unpack("ctr")
    await pod.calls.CreateContainer(pod.request("ctr", "sleep", "1000", share_pids=True))
    await pod.start("ctr")
    for number in range(10):
        await pod.shell("ctr", "(sleep 0.01 >/dev/null 2>&1 &) ; (true >/dev/null 2>&1 &)", f"x{number}")

    # Orphans that are nobody's first process belong to the container's first, which here never waits; those of
    # the agent's own are what counts: crun and all that it left behind.
    own = pod.path("/proc/1/task/1/children").read_text().split()
    states = [line for pid in own for line in pod.path(f"/proc/{pid}/status").read_text().splitlines()]

    assert not [line for line in states if line.startswith("State:") and "Z" in line.split()[1]]


async def test_an_unknown_container_is_told_as_hosts_expect(pod: Pod) -> None:
    invalid = {"wait", "signal", "read", "close_stdin", "stats", "resize"}

    for call in (*invalid, "start", "remove", "exec", "write", "kill"):
        with pytest.raises(StatusError, match=r"[Ii]nvalid container id 'none'") as refusal:
            await _call(pod, call, "none", "")
        assert refusal.value.code is (Code.INVALID_ARGUMENT if call in invalid else Code.INTERNAL), call


async def test_an_unknown_process_is_told_as_hosts_expect(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    for call in ("wait", "signal", "read", "close_stdin", "resize", "write"):
        with pytest.raises(StatusError, match="InvalidExecId") as refusal:
            await _call(pod, call, "ctr", "none")
        assert refusal.value.code is (Code.INTERNAL if call == "write" else Code.NOT_FOUND), call


def _alive(pod: Pod) -> list[int]:
    return [pid for pid, state in pod.processes().items() if state != "Z"]


async def _call(pod: Pod, call: str, container_id: str, exec_id: str) -> None:
    match call:
        case "wait":
            await pod.wait(container_id, exec_id)
        case "signal":
            await pod.signal(container_id, 15, exec_id)
        case "kill":
            await pod.signal(container_id, 9)
        case "read":
            await pod.read(container_id, exec_id)
        case "write":
            await pod.write(container_id, b"x", exec_id)
        case "close_stdin":
            await pod.close_stdin(container_id, exec_id)
        case "resize":
            await pod.resize(container_id, 1, 1, exec_id)
        case "stats":
            await pod.stats(container_id)
        case "start":
            await pod.start(container_id)
        case "remove":
            await pod.remove(container_id)
        case "exec":
            await pod.exec(container_id, "x", "true")
