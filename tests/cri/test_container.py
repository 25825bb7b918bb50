"""A container's life in a pod: created, started, ended, removed, and the next one after it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import CREATED, EXITED, READY, RUNNING, Pod, Pods
from tests.cri.proto import cri_pb2 as cri
from tools import oci_image

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

DEAF = "trap '' TERM; echo up; while :; do sleep 0.1; done"


@ON_BOTH
async def test_a_container_goes_from_created_over_running_to_exited(pods: Pods) -> None:
    async with pods.run() as pod:
        began = time.time_ns()
        container = await pod.create("sh", "-c", "echo up; exec sleep 1000")
        assert (await container.status()).state == CREATED
        await container.start()
        await container.wrote(b"up\n")
        assert (await container.status()).state == RUNNING
        await container.stop(0)
        status = await container.status()
        assert (status.state, status.exit_code) == (EXITED, 137)
        assert began < status.created_at < status.started_at < status.finished_at < time.time_ns()
        await container.remove()
        assert await pod.containers() == {}


@pytest.mark.parametrize("code", [0, 1, 42, 126, 200, 255])
async def test_the_exit_code_is_that_of_the_process(shared_pod: Pod, code: int) -> None:
    container = await shared_pod.run("sh", "-c", f"exit {code}")
    status = await container.exited()
    assert status.exit_code == code
    assert status.reason == ("Completed" if code == 0 else "Error")
    await container.remove()


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("USR1", 138)])
async def test_a_signal_is_told_by_the_exit_code(shared_pod: Pod, name: str, code: int) -> None:
    assert (await shared_pod.outcome("sh", "-c", f"sh -c 'kill -{name} $$'; exit $?")).code == code


async def test_the_stop_signal_reaches_the_process_and_its_answer_counts(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
    await container.wrote(b"up\n")
    await container.stop(30)
    assert (await container.status()).exit_code == 7
    assert container.output() == b"up\nbye\n"
    await container.remove()


async def test_a_process_deaf_to_the_stop_signal_is_killed_after_the_grace(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", DEAF)
    await container.wrote(b"up\n")
    began = time.monotonic()
    await container.stop(1)
    assert 1 <= time.monotonic() - began < 10
    assert (await container.status()).exit_code == 137
    await container.remove()


async def test_no_grace_kills_at_once(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", DEAF)
    await container.wrote(b"up\n")
    began = time.monotonic()
    await container.stop(0)
    assert time.monotonic() - began < 5
    assert (await container.status()).exit_code == 137
    await container.remove()


async def test_a_container_may_be_stopped_again(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000")
    for _ in range(3):
        await container.stop(0)
    await container.remove()


async def test_stopping_what_has_ended_keeps_its_exit_code(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "exit 3")
    await container.exited()
    await container.stop()
    assert (await container.status()).exit_code == 3
    await container.remove()


async def test_a_container_may_be_removed_again(shared_pod: Pod) -> None:
    container = await shared_pod.run("true")
    await container.exited()
    for _ in range(3):
        await container.remove()


async def test_removing_a_running_container_ends_it(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000", name="running")
    await container.remove()
    assert "running" not in await shared_pod.containers()


async def test_a_created_container_can_be_removed(shared_pod: Pod) -> None:
    container = await shared_pod.create("true", name="unstarted")
    await container.remove()
    assert "unstarted" not in await shared_pod.containers()


async def test_a_container_starts_once(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000")
    with pytest.raises(CriError):
        await container.start()
    assert (await container.status()).state == RUNNING
    await container.remove()


async def test_an_ended_container_does_not_start_again(shared_pod: Pod) -> None:
    container = await shared_pod.run("true")
    await container.exited()
    with pytest.raises(CriError):
        await container.start()
    await container.remove()


@pytest.mark.parametrize("method", ["container_status", "stats"])
async def test_an_unknown_container_is_not_found(shared_pod: Pod, pods: Pods, method: str) -> None:
    requests = {
        "container_status": cri.ContainerStatusRequest(container_id="no-such-container"),
        "stats": cri.ContainerStatsRequest(container_id="no-such-container"),
    }
    with pytest.raises(CriError) as caught:
        await getattr(pods.cri, method)(requests[method])
    assert caught.value.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN)
    assert "not found" in caught.value.text or "NotFound" in caught.value.text


@ON_BOTH
async def test_a_missing_command_is_named_and_the_container_has_ended(pods: Pods) -> None:
    async with pods.run() as pod:
        container = await pod.create("/bin/no-such-command")
        with pytest.raises(CriError, match="no-such-command"):
            await container.start()
        status = await container.status()
        assert status.state == EXITED
        assert status.exit_code != 0
        assert (await pod.outcome("true")).code == 0


async def test_a_program_that_may_not_be_executed_is_an_error(shared_pod: Pod) -> None:
    container = await shared_pod.create("/etc/passwd")
    with pytest.raises(CriError, match=r"(?i)permission denied"):
        await container.start()
    await container.remove()


async def test_a_name_and_attempt_are_taken_once(shared_pod: Pod) -> None:
    container = await shared_pod.create("true", name="taken")
    with pytest.raises(CriError, match="reserved"):
        await shared_pod.create("true", name="taken")
    await container.remove()


async def test_attempts_of_a_container_follow_each_other_in_one_pod(shared_pod: Pod) -> None:
    for attempt in range(4):
        container = await shared_pod.run(
            "sh", "-c", f"echo attempt {attempt}; exit {attempt}", name="r", attempt=attempt
        )
        status = await container.exited()
        assert (status.metadata.attempt, status.exit_code) == (attempt, attempt)
        assert container.output() == f"attempt {attempt}\n".encode()
    assert (await shared_pod.status()).state == READY


@ON_BOTH
async def test_init_containers_end_before_the_next_begins_and_hand_on_their_files(pods: Pods, tmp_path: Path) -> None:
    volume = [cri.Mount(container_path="/work", host_path=str(tmp_path))]
    async with pods.run() as pod:
        for step in ("first", "second"):
            assert (await pod.outcome("sh", "-c", f"echo {step} >> /work/steps", mounts=volume)).code == 0
        assert (await pod.outcome("cat", "/work/steps", mounts=volume)).stdout == b"first\nsecond\n"
        assert (await pod.status()).state == READY


async def test_a_failed_init_container_is_told_by_its_code(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("sh", "-c", "echo no database >&2; exit 9")
    assert (outcome.code, outcome.stderr) == (9, b"no database\n")


async def test_one_containers_end_leaves_the_others_running(pods: Pods) -> None:
    async with pods.run() as pod:
        steady = await pod.run("sleep", "1000")
        short = await pod.run("true")
        await short.exited()
        await short.remove()
        assert (await steady.status()).state == RUNNING
        assert await steady.sh("echo here") == "here"


async def test_containers_are_created_side_by_side(pods: Pods) -> None:
    async with pods.run() as pod:
        containers = await asyncio.gather(*(pod.run("sleep", "1000", name=f"n{n}") for n in range(5)))
        assert await pod.containers() == {f"n{n}": RUNNING for n in range(5)}
        assert await asyncio.gather(*(container.sh(f"echo {n}") for n, container in enumerate(containers))) == [
            *"01234"
        ]
        await asyncio.gather(*(container.stop(0) for container in containers))
        assert set((await pod.containers()).values()) == {EXITED}


async def test_the_order_in_which_containers_are_stopped_is_the_managers(pods: Pods) -> None:
    async with pods.run() as pod:
        first, second = [await pod.run("sleep", "1000") for _ in range(2)]
        await first.stop(0)
        assert (await second.status()).state == RUNNING
        assert (await pod.status()).state == READY
        await second.stop(0)
        assert (await pod.status()).state == READY
        assert (await pod.outcome("echo", "third")).stdout == b"third\n"


async def test_twenty_containers_one_after_the_other_share_a_pod(pods: Pods) -> None:
    async with pods.run() as pod:
        for number in range(20):
            container = await pod.run("echo", str(number))
            await container.exited()
            assert container.output() == f"{number}\n".encode()
            await container.remove()


async def test_arguments_follow_the_command(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("echo", "-n", args=["a b", "", "$HOME", "é"])
    assert outcome.stdout == "a b  $HOME é".encode()


async def test_arguments_replace_the_images_command(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome(args=["sh", "-c", "echo from args"])
    assert outcome.stdout == b"from args\n"


async def test_without_a_command_the_images_runs(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome()  # a shell that finds no input
    assert (outcome.code, outcome.stdout) == (0, b"")


async def test_the_environment_is_the_images_with_the_containers(shared_pod: Pod) -> None:
    envs = [cri.KeyValue(key="GREETING", value="good day"), cri.KeyValue(key="EMPTY", value="")]
    lines = (await shared_pod.outcome("env", envs=envs)).stdout.decode().splitlines()
    assert {"GREETING=good day", "EMPTY=", "PATH=/bin:/usr/bin"} <= set(lines)


@pytest.mark.parametrize("directory", ["/tmp", "/made/on/the/way"])
async def test_the_working_directory_is(shared_pod: Pod, directory: str) -> None:
    assert (await shared_pod.outcome("pwd", working_dir=directory)).stdout.decode().strip() == directory


async def test_labels_and_annotations_of_a_container_come_back(shared_pod: Pod) -> None:
    labels, annotations = {"io.kubernetes.container.name": "web"}, {"io.kubernetes.container.hash": "1a2b"}
    container = await shared_pod.create("true", labels=labels, annotations=annotations)
    status = await container.status()
    assert dict(status.labels) == labels
    assert dict(status.annotations) == annotations
    assert status.image.image == oci_image.REFERENCE
    await container.remove()


@pytest.mark.parametrize("by", ["id", "state", "label"])
async def test_containers_are_listed_by(shared_pod: Pod, pods: Pods, by: str) -> None:
    wanted = await shared_pod.run("sleep", "1000", labels={"color": "red"})
    other = await shared_pod.create("true", labels={"color": "blue"})
    filters = {
        "id": cri.ContainerFilter(id=wanted.id),
        "state": cri.ContainerFilter(state=cri.ContainerStateValue(state=RUNNING)),
        "label": cri.ContainerFilter(label_selector={"color": "red"}),
    }
    listed = (await pods.cri.list_containers(cri.ListContainersRequest(filter=filters[by]))).containers
    ids = [container.id for container in listed]
    assert wanted.id in ids
    assert other.id not in ids
    await wanted.remove()
    await other.remove()


async def test_what_a_container_writes_to_its_root_is_its_own(shared_pod: Pod) -> None:
    container = await shared_pod.run("sh", "-c", "echo mine > /tmp/file; sleep 1000")
    assert await container.sh("until [ -s /tmp/file ]; do :; done; cat /tmp/file") == "mine"
    assert (await shared_pod.outcome("cat", "/tmp/file")).code == 1
    await container.remove()


async def test_orphans_of_a_container_end_with_it(shared_pod: Pod, tmp_path: Path) -> None:
    volume = [cri.Mount(container_path="/work", host_path=str(tmp_path))]
    script = "(trap '' HUP TERM; while :; do date > /work/beat; sleep 0.05; done) & until [ -s /work/beat ]; do :; done"
    assert (await shared_pod.outcome("sh", "-c", script, mounts=volume)).code == 0
    (tmp_path / "beat").unlink()
    assert (await shared_pod.outcome("sh", "-c", "sleep 0.3; ls /work", mounts=volume)).stdout == b""
