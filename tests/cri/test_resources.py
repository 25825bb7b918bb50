"""Limits of a container, in its cgroup and in effect."""

from __future__ import annotations

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Container, Pod, Pods
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

MIB = 1 << 20
# A guest has cgroup v2, the host of the namespace driver may have v1: one file or the other is there.
MEMORY = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
CPU = (
    "cat /sys/fs/cgroup/cpu.max 2>/dev/null"
    " || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us"
)
SHARES = "cat /sys/fs/cgroup/cpu.weight 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.shares"


def limited(**resources: int) -> cri.LinuxContainerConfig:
    """A container's limits."""
    return cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(**resources))


async def memory_limit(container: Container) -> int | None:
    """What its cgroup says, in bytes."""
    text = await container.sh(MEMORY)
    return None if text == "max" or int(text) > 1 << 60 else int(text)


async def cpu_limit(container: Container) -> float | None:
    """What its cgroup says, in processors."""
    quota, period = (await container.sh(CPU)).split()
    return None if quota in ("max", "-1") else int(quota) / int(period)


@ON_BOTH
async def test_a_memory_limit_is_the_cgroups(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", linux=limited(memory_limit_in_bytes=64 * MIB))
        assert await memory_limit(container) == 64 * MIB


async def test_without_a_limit_memory_is_the_machines(shared: Container) -> None:
    assert await memory_limit(shared) is None


@ON_BOTH
async def test_a_limit_of_processor_time_is_the_cgroups(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sleep", "1000", linux=limited(cpu_quota=50_000, cpu_period=100_000))
        assert await cpu_limit(container) == 0.5


async def test_without_a_limit_processor_time_is_the_machines(shared: Container) -> None:
    assert await cpu_limit(shared) is None


async def test_shares_of_processor_time_are_the_cgroups(shared_pod: Pod) -> None:
    few = await shared_pod.run("sleep", "1000", linux=limited(cpu_shares=2))
    many = await shared_pod.run("sleep", "1000", linux=limited(cpu_shares=2048))
    assert int(await few.sh(SHARES)) < int(await many.sh(SHARES))
    await few.remove()
    await many.remove()


async def test_each_container_has_limits_of_its_own(shared_pod: Pod) -> None:
    containers = [
        await shared_pod.run("sleep", "1000", linux=limited(memory_limit_in_bytes=size * MIB)) for size in (32, 48)
    ]
    assert [await memory_limit(container) for container in containers] == [32 * MIB, 48 * MIB]
    for container in containers:
        await container.remove()


async def test_a_created_container_is_given_other_limits_before_it_starts(shared_pod: Pod) -> None:
    container = await shared_pod.create("sleep", "1000", linux=limited(memory_limit_in_bytes=64 * MIB))
    await container.update(memory_limit_in_bytes=80 * MIB)
    await container.start()
    assert await memory_limit(container) == 80 * MIB
    await container.remove()


async def test_a_container_that_fails_by_itself_is_not_told_as_out_of_memory(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "exit 137", linux=limited(memory_limit_in_bytes=32 * MIB))
    assert (await container.exited()).reason == "Error"
    await container.remove()
