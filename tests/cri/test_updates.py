"""Limits that a running container is given, and what becomes of one that takes more memory than it may."""

from __future__ import annotations

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import RUNNING, Pod, Pods
from tests.cri.test_resources import MIB, cpu_limit, limited, memory_limit

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

EATER = "x=0123456789abcdef; while :; do x=$x$x; done"


@ON_BOTH
async def test_a_running_container_is_given_another_memory_limit(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", linux=limited(memory_limit_in_bytes=64 * MIB))
        await container.update(memory_limit_in_bytes=96 * MIB)
        assert await memory_limit(container) == 96 * MIB
        await container.update(memory_limit_in_bytes=48 * MIB)
        assert await memory_limit(container) == 48 * MIB
        assert (await container.status()).state == RUNNING


async def test_a_running_container_is_given_other_processor_time(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000", linux=limited(cpu_quota=50_000, cpu_period=100_000))
    await container.update(cpu_quota=20_000, cpu_period=100_000)
    assert await cpu_limit(container) == 0.2
    await container.remove()


@ON_BOTH
async def test_a_container_that_takes_more_memory_than_it_may_is_killed_and_that_is_told(pods: Pods) -> None:
    async with pods.run() as pod:
        eater = await pod.run("sh", "-c", EATER, linux=limited(memory_limit_in_bytes=32 * MIB))
        status = await eater.exited(60)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_a_container_killed_for_want_of_memory_leaves_the_others_alone(pods: Pods) -> None:
    async with pods.run() as pod:
        other = await pod.run("sleep", "1000")
        eater = await pod.run("sh", "-c", EATER, linux=limited(memory_limit_in_bytes=32 * MIB))
        assert (await eater.exited(60)).reason == "OOMKilled"
        assert (await other.status()).state == RUNNING
        assert (await pod.outcome("true")).code == 0
