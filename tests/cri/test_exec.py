"""Commands run in a container: to their end, by time, and with their streams at hand."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Container, Outcome, Pod, attempts, pid_of
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

MIB = 1 << 20


@ON_BOTH
async def test_a_command_returns_both_outputs_and_its_exit_code(shared: Container) -> None:
    assert await shared.exec("sh", "-c", "echo out; echo err >&2; exit 5") == Outcome(5, b"out\n", b"err\n")


@pytest.mark.parametrize("code", [0, 1, 2, 127, 255])
async def test_the_commands_exit_code_is(shared: Container, code: int) -> None:
    assert (await shared.exec("sh", "-c", f"exit {code}")).code == code


async def test_a_command_killed_by_a_signal_tells_it(shared: Container) -> None:
    assert (await shared.exec("sh", "-c", "kill -KILL $$")).code == 137


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 65537, 4 * MIB])
async def test_every_byte_of_an_output_arrives(shared: Container, size: int) -> None:
    script = f"yes kata-containers | head -c {size}; yes virtual-machine | head -c {size} >&2"
    outcome = await shared.exec("sh", "-c", script)
    for got, line in ((outcome.stdout, b"kata-containers\n"), (outcome.stderr, b"virtual-machine\n")):
        assert hashlib.sha256(got).digest() == hashlib.sha256((line * (size // len(line) + 1))[:size]).digest()


async def test_bytes_that_are_no_text_arrive_as_they_are(shared: Container) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in range(256))
    assert (await shared.exec("printf", octal)).stdout == bytes(range(256))


async def test_a_missing_command_of_an_exec_is_named(shared: Container) -> None:
    with pytest.raises(CriError, match="no-such-command"):
        await shared.exec("no-such-command")


@ON_BOTH
async def test_a_command_that_takes_too_long_is_ended(shared: Container) -> None:
    began = time.monotonic()
    with pytest.raises(CriError, match=r"(?i)timeout"):
        await shared.exec("sleep", "4321", timeout=1)
    assert time.monotonic() - began < 15
    async for _ in attempts(5, "the command is still there"):
        if "4321" not in await shared.sh("ps"):
            break


async def test_a_command_that_is_in_time_is_not_ended(shared: Container) -> None:
    assert (await shared.exec("sh", "-c", "sleep 0.2; echo done", timeout=20)).stdout == b"done\n"


async def test_twenty_commands_run_side_by_side(shared: Container) -> None:
    outcomes = await asyncio.gather(*(shared.exec("sh", "-c", f"sleep 0.2; echo {n}; exit {n}") for n in range(20)))
    assert outcomes == [Outcome(n, f"{n}\n".encode(), b"") for n in range(20)]


async def test_a_hundred_commands_one_after_the_other_leave_no_process(shared: Container) -> None:
    for _ in range(100):
        assert (await shared.exec("true")).code == 0
    async for _ in attempts(5, "there is more than the container's process and the two that count"):
        if await shared.sh("ls -d /proc/[0-9]* | wc -l") == "4":  # sleep, sh, ls, wc
            break


async def test_a_command_sees_the_containers_environment_directory_and_user(shared_pod: Pod) -> None:
    container = await shared_pod.run(
        "sleep",
        "1000",
        working_dir="/tmp",
        envs=[cri.KeyValue(key="COLOR", value="red")],
        linux=cri.LinuxContainerConfig(
            security_context=cri.LinuxContainerSecurityContext(
                run_as_user=cri.Int64Value(value=1234), run_as_group=cri.Int64Value(value=5678)
            )
        ),
    )
    assert await container.sh("pwd; echo $COLOR; id -u; id -g") == "/tmp\nred\n1234\n5678"
    await container.remove()


async def test_a_command_has_no_input_unless_it_is_given_one(shared: Container) -> None:
    assert await shared.exec("cat") == Outcome(0, b"", b"")


async def test_a_command_leaves_what_it_started_in_the_background(shared: Container) -> None:
    await shared.sh("sleep 7777 >/dev/null 2>&1 </dev/null &")
    assert "7777" in await shared.sh("ps")
    await shared.sh(f"kill $({pid_of('sleep 7777')})")


@pytest.mark.parametrize("state", ["created", "ended"])
async def test_a_container_takes_no_command_when_it_is(shared_pod: Pod, state: str) -> None:
    container = await shared_pod.create("true")
    if state == "ended":
        await container.start()
        await container.exited()
    with pytest.raises(CriError, match=r"(?i)not running|state"):
        await container.exec("true")
    await container.remove()


async def test_the_end_of_a_container_ends_its_commands(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000")
    running = asyncio.create_task(container.exec("sh", "-c", "echo begun > /tmp/begun; exec sleep 1000"))
    await container.sh("until [ -s /tmp/begun ]; do sleep 0.01; done")
    await container.stop(0)
    assert (await running).code == 137
    await container.remove()
