"""A pod's life: run, stop, remove, as often as a kubelet may ask."""

from __future__ import annotations

import asyncio
import os
import time

import grpc
import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import EXITED, NOT_READY, READY, RUNNING, Pods
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


@ON_BOTH
async def test_a_pod_runs_is_stopped_and_removed(pods: Pods) -> None:
    pod = await pods.start(pods.config())
    assert (await pod.status()).state == READY
    await pod.stop()
    assert (await pod.status()).state == NOT_READY
    await pod.remove()
    assert pod.id not in await pods.all()


@ON_BOTH
async def test_a_pod_of_three_containers_runs_and_ends_as_a_whole(pods: Pods) -> None:
    async with pods.run() as pod:
        for name in ("one", "two", "three"):
            await pod.run("sleep", "1000", name=name)
        assert await pod.containers() == {"one": RUNNING, "two": RUNNING, "three": RUNNING}
        await pod.stop()
        assert await pod.containers() == {"one": EXITED, "two": EXITED, "three": EXITED}


async def test_a_stopped_pod_may_be_stopped_again(pods: Pods) -> None:
    async with pods.run() as pod:
        for _ in range(3):
            await pod.stop()
        assert (await pod.status()).state == NOT_READY


async def test_a_removed_pod_may_be_removed_again(pods: Pods) -> None:
    pod = await pods.start(pods.config())
    await pod.stop()
    for _ in range(3):
        await pod.remove()


async def test_removing_a_running_pod_ends_it_first(pods: Pods) -> None:
    pod = await pods.start(pods.config())
    await pod.run("sleep", "1000")
    await pod.remove()
    assert pod.id not in await pods.all()


async def test_the_status_of_an_unknown_pod_is_not_found(pods: Pods) -> None:
    with pytest.raises(CriError) as caught:
        await pods.cri.pod_status(cri.PodSandboxStatusRequest(pod_sandbox_id="no-such-pod"))
    assert caught.value.code == grpc.StatusCode.NOT_FOUND


async def test_a_second_pod_of_the_same_name_and_attempt_is_refused(pods: Pods) -> None:
    config = pods.config()
    pod = await pods.start(config)
    with pytest.raises(CriError, match="reserved"):
        await pods.start(config)
    assert (await pod.status()).state == READY
    await pod.remove()


async def test_the_next_attempt_of_a_pod_runs_beside_the_last(pods: Pods) -> None:
    config = pods.config()
    first = await pods.start(config)
    config.metadata.attempt = 1
    second = await pods.start(config)
    assert (await first.status()).metadata.attempt == 0
    assert (await second.status()).metadata.attempt == 1
    await first.remove()
    assert (await second.status()).state == READY
    await second.remove()


async def test_a_name_is_free_again_once_its_pod_is_removed(pods: Pods) -> None:
    config = pods.config()
    for _ in range(2):
        pod = await pods.start(config)
        await pod.stop()
        await pod.remove()


async def test_labels_and_annotations_come_back_as_they_were_given(pods: Pods) -> None:
    labels, annotations = {"app": "web", "tier": "front"}, {"example.org/note": "two words", "empty": ""}
    async with pods.run(labels=labels, annotations=annotations) as pod:
        status = await pod.status()
        assert dict(status.labels) == labels
        assert dict(status.annotations) == annotations


async def test_the_status_names_metadata_handler_and_birth(pods: Pods, driver: str) -> None:
    before = time.time_ns()
    async with pods.run("named") as pod:
        status = await pod.status()
        assert (status.metadata.name, status.metadata.namespace) == ("named", "tests")
        assert status.runtime_handler == driver
        assert before <= status.created_at <= time.time_ns()


@pytest.mark.parametrize("by", ["id", "state", "label"])
async def test_pods_are_listed_by(pods: Pods, by: str) -> None:
    async with pods.run(labels={"color": "red"}) as red, pods.run(labels={"color": "blue"}) as blue:
        await blue.stop()
        filters = {
            "id": cri.PodSandboxFilter(id=red.id),
            "state": cri.PodSandboxFilter(state=cri.PodSandboxStateValue(state=READY)),
            "label": cri.PodSandboxFilter(label_selector={"color": "red"}),
        }
        listed = (await pods.cri.list_pods(cri.ListPodSandboxRequest(filter=filters[by]))).items
        assert red.id in [pod.id for pod in listed]
        assert blue.id not in [pod.id for pod in listed]


async def test_an_unknown_runtime_handler_is_refused(pods: Pods) -> None:
    before = await pods.all()
    with pytest.raises(CriError, match="no-such-handler"):
        await pods.cri.run_pod(cri.RunPodSandboxRequest(config=pods.config(), runtime_handler="no-such-handler"))
    assert await pods.all() == before


@ON_BOTH
async def test_the_pid_of_a_pod_is_a_process_of_the_host(pods: Pods) -> None:
    async with pods.run() as pod:
        pid = (await pod.info())["pid"]
        os.kill(pid, 0)
        await pod.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_pods_start_and_end_side_by_side(pods: Pods) -> None:
    running = await asyncio.gather(*(pods.start(pods.config()) for _ in range(4)))
    assert len({pod.id for pod in running}) == 4
    await asyncio.gather(*(pod.run("sleep", "1000") for pod in running))
    await asyncio.gather(*(pod.remove() for pod in running))
    assert not {pod.id for pod in running} & set(await pods.all())


async def test_a_pod_that_is_stopped_takes_no_further_container(pods: Pods) -> None:
    async with pods.run() as pod:
        await pod.stop()
        with pytest.raises(CriError):
            await pod.create("true")


async def test_stopping_a_pod_kills_what_ignores_the_stop_signal(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.run("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
        await container.wrote(b"up\n")
        await pod.stop()
        assert (await container.status()).exit_code == 137


async def test_a_pod_without_containers_stays_ready_until_it_is_stopped(pods: Pods) -> None:
    async with pods.run() as pod:
        assert (await pod.outcome("true")).code == 0
        assert (await pod.status()).state == READY


async def test_a_pod_whose_image_lacks_its_command_fails_and_leaves_nothing(pods: Pods) -> None:
    async with pods.run() as pod:
        with pytest.raises(CriError, match="no-such-command"):
            await pod.run("no-such-command")
        assert (await pod.outcome("true")).code == 0


async def test_ten_pods_one_after_the_other_leave_nothing(pods: Pods) -> None:
    for _ in range(10):
        async with pods.run() as pod:
            assert (await pod.status()).state == READY
