"""What containers use, as the kubelet asks for it."""

from __future__ import annotations

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import Container, Pod, Pods, attempts
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

MIB = 1 << 20
BUSY = "while :; do :; done"


@ON_BOTH
async def test_a_running_container_has_used_processor_and_memory(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "head -c 8388608 /dev/zero > /dev/shm/ballast; exec sleep 1000")
        await container.sh("until [ $(stat -c %s /dev/shm/ballast) = 8388608 ]; do sleep 0.02; done")
        stats = await container.stats()
        assert stats.attributes.id == container.id
        assert stats.cpu.usage_core_nano_seconds.value > 0
        assert stats.cpu.timestamp > 0
        assert stats.memory.working_set_bytes.value > 0


@ON_BOTH
async def test_processor_time_grows_with_work(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", BUSY)
        first = (await container.stats()).cpu.usage_core_nano_seconds.value
        async for _ in attempts(20, "no more processor time is counted"):
            if (await container.stats()).cpu.usage_core_nano_seconds.value > first + 100_000_000:
                break


async def test_memory_grows_with_what_is_held(shared_pod: Pod) -> None:
    small = await shared_pod.run("sleep", "1000")
    script = "x=$(head -c 20971520 /dev/zero | tr '\\0' x); echo held; while :; do sleep 1; done"
    large = await shared_pod.run("sh", "-c", script)
    await large.wrote(b"held\n")
    used = [(await container.stats()).memory.working_set_bytes.value for container in (small, large)]
    assert used[1] > used[0] + 15 * MIB
    await small.remove()
    await large.remove()


async def test_an_idle_container_uses_little(shared: Container) -> None:
    assert (await shared.stats()).memory.working_set_bytes.value < 16 * MIB


async def test_what_a_container_writes_to_its_root_is_counted(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "head -c 4194304 /dev/zero > /ballast; sync; echo written; sleep 1000")
    await container.wrote(b"written\n")
    async for _ in attempts(20, "the writable layer is not counted"):  # collected by containerd each second
        if (await container.stats()).writable_layer.used_bytes.value >= 4 * MIB:
            break
    await container.remove()


async def test_statistics_name_labels_and_annotations(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000", name="told", labels={"a": "b"}, annotations={"c": "d"})
    attributes = (await container.stats()).attributes
    assert attributes.metadata.name == "told"
    assert dict(attributes.labels) == {"a": "b"}
    assert dict(attributes.annotations) == {"c": "d"}
    await container.remove()


@pytest.mark.parametrize("by", ["id", "pod", "label"])
async def test_statistics_are_listed_by(shared_pod: Pod, pods: Pods, by: str) -> None:
    wanted = await shared_pod.run("sleep", "1000", labels={"color": "red"})
    filters = {
        "id": cri.ContainerStatsFilter(id=wanted.id),
        "pod": cri.ContainerStatsFilter(pod_sandbox_id=shared_pod.id),
        "label": cri.ContainerStatsFilter(label_selector={"color": "red"}),
    }
    async with pods.run(name=f"other-{by}") as other:
        unwanted = await other.run("sleep", "1000", labels={"color": "blue"})
        listed = (await pods.cri.list_stats(cri.ListContainerStatsRequest(filter=filters[by]))).stats
    ids = [stats.attributes.id for stats in listed]
    assert wanted.id in ids
    assert unwanted.id not in ids
    await wanted.remove()


async def test_an_ended_container_does_not_spoil_the_list(shared_pod: Pod, pods: Pods) -> None:
    running = await shared_pod.run("sleep", "1000")
    ended = await shared_pod.run("true")
    await ended.exited()
    request = cri.ListContainerStatsRequest(filter=cri.ContainerStatsFilter(pod_sandbox_id=shared_pod.id))
    ids = [stats.attributes.id for stats in (await pods.cri.list_stats(request)).stats]
    assert running.id in ids
    await running.remove()
    await ended.remove()
