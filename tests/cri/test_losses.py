"""A pod loses its machine or its shim: the kubelet is told, and can go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH, ON_QEMU
from tests.cri.pods import NOT_READY, READY, Pod, Pods
from tests.faults import processes
from tools.cri import CriContainerd

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


def pids(pod: Pod) -> dict[str, int]:
    """The processes of the pod, by what its record calls them."""
    return processes(json.loads(Path(f"/run/vc/sbs/{pod.id}/record.json").read_bytes()))


@ON_BOTH
async def test_the_containers_of_a_pod_whose_machine_dies_have_ended_and_it_is_not_ready(pods: Pods) -> None:
    async with pods.run() as pod:
        containers = [await pod.run("sleep", "1000") for _ in range(2)]
        os.kill((await pod.info())["pid"], signal.SIGKILL)
        await pod.becomes(NOT_READY)
        for container in containers:
            assert (await container.exited()).exit_code == 255


@ON_BOTH
async def test_the_containers_of_a_pod_whose_shim_dies_have_ended_and_it_is_not_ready(pods: Pods) -> None:
    async with pods.run() as pod:
        containers = [await pod.run("sleep", "1000") for _ in range(2)]
        os.kill(pids(pod)["shim"], signal.SIGKILL)
        await pod.becomes(NOT_READY)
        for container in containers:
            assert (await container.exited()).exit_code != 0


@pytest.mark.parametrize("lost", ["machine", "shim"])
async def test_a_pod_is_stopped_and_removed_after_the_loss_of_its(pods: Pods, lost: str) -> None:
    pod = await pods.start(pods.config())
    container = await pod.run("sleep", "1000")
    os.kill((await pod.info())["pid"] if lost == "machine" else pids(pod)["shim"], signal.SIGKILL)
    await pod.becomes(NOT_READY)
    await container.stop(0)
    await container.remove()
    await pod.stop()
    await pod.remove()
    assert pod.id not in await pods.all()


@pytest.mark.parametrize("lost", ["machine", "shim"])
async def test_the_next_attempt_of_a_pod_runs_after_the_loss_of_its(pods: Pods, lost: str) -> None:
    config = pods.config()
    first = await pods.start(config)
    os.kill((await first.info())["pid"] if lost == "machine" else pids(first)["shim"], signal.SIGKILL)
    await first.becomes(NOT_READY)
    await first.stop()
    config.metadata.attempt = 1
    second = await pods.start(config)
    assert (await second.status()).state == READY
    assert (await second.outcome("echo", "again")).stdout == b"again\n"
    await second.remove()
    await first.remove()


async def test_one_pods_loss_leaves_the_others_running(pods: Pods) -> None:
    async with pods.run() as lost, pods.run() as kept:
        container = await kept.run("sleep", "1000")
        os.kill((await lost.info())["pid"], signal.SIGKILL)
        await lost.becomes(NOT_READY)
        assert (await kept.status()).state == READY
        assert await container.sh("echo here") == "here"


async def test_a_pod_that_lost_its_machine_takes_no_further_container(pods: Pods) -> None:
    async with pods.run() as pod:
        os.kill((await pod.info())["pid"], signal.SIGKILL)
        await pod.becomes(NOT_READY)
        with pytest.raises(CriError):
            await pod.run("true")


async def test_a_command_that_runs_when_the_machine_dies_ends_with_an_error_or_code(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000")
        async with container.executing("sh", "-c", "echo up; sleep 1000") as session:
            await session.until(b"up\n")
            os.kill((await pod.info())["pid"], signal.SIGKILL)
            assert await session.ended() != 0
        assert (await container.exited()).exit_code == 255


async def test_the_log_of_a_lost_container_has_what_it_wrote_before(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "seq 1000; sleep 1000")
        await container.wrote(b"1000\n")
        os.kill((await pod.info())["pid"], signal.SIGKILL)
        await container.exited()
        assert len(container.output().splitlines()) == 1000


@ON_QEMU
async def test_a_pod_whose_file_server_dies_has_ended_and_can_be_removed(pods: Pods) -> None:
    pod = await pods.start(pods.config())
    container = await pod.run("sleep", "1000")
    os.kill(next(pid for name, pid in pids(pod).items() if "virtiofsd" in name), signal.SIGKILL)
    await pod.becomes(NOT_READY)
    await container.exited()
    await pod.stop()
    await pod.remove()


async def test_the_reason_is_in_the_managers_log(pods: Pods, containerd: CriContainerd) -> None:
    async with pods.run() as pod:
        os.kill((await pod.info())["pid"], signal.SIGKILL)
        await pod.becomes(NOT_READY)
        assert "killed by signal 9" in containerd.log.read_text(errors="replace")
