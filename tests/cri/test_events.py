"""What the shim tells containerd of each container, in its order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.cri.conftest import ON_BOTH
from tests.cri.pods import EXIT_TIMEOUT, Pod, Pods
from tools.cri import CriContainerd

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


class Events:
    """The task events that containerd has forwarded since."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def until(self, topic: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event of that topic with these fields, as `ctr` prints them.

        Raises:
            TimeoutError: It did not come in time; the text has what came.
        """
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                while True:
                    line = (await self._stream.readline()).decode()
                    before, _, content = line.partition("{")
                    if "/tasks/" not in before:
                        continue
                    got = before.split()[-1], json.loads("{" + content)
                    self.seen.append(got)
                    if got[0] == topic and fields.items() <= got[1].items():
                        return got[1]
        except TimeoutError:
            raise TimeoutError(f"no {topic} of {fields}; seen: {self.seen}") from None

    def topics(self, container_id: str) -> list[str]:
        """The topics of a container's events, in their order."""
        return [topic for topic, event in self.seen if event.get("container_id") == container_id]


@asynccontextmanager
async def events(containerd: CriContainerd) -> AsyncIterator[Events]:
    """Follow containerd's events; from the moment at which it is sure that none is missed."""
    process = await asyncio.create_subprocess_exec(
        *containerd.command("events"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(EXIT_TIMEOUT):
            while True:
                label = await asyncio.create_subprocess_exec(
                    *containerd.command("namespaces", "label", "k8s.io", "followed=yes")
                )
                await label.wait()
                try:
                    async with asyncio.timeout(0.2):
                        await process.stdout.readline()
                    break
                except TimeoutError:
                    continue
        yield Events(process.stdout)
    finally:
        process.terminate()
        await process.wait()


@ON_BOTH
async def test_a_containers_events_come_in_the_order_of_its_life(pods: Pods, containerd: CriContainerd) -> None:
    async with pods.run() as pod, events(containerd) as followed:
        container = await pod.run("sh", "-c", "exit 3")
        exit = await followed.until("/tasks/exit", container_id=container.id)
        assert exit["exit_status"] == 3
        await followed.until("/tasks/delete", container_id=container.id)
        assert followed.topics(container.id) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
        await container.exited()


async def test_an_execs_events_come_in_the_order_of_its_life(shared_pod: Pod, containerd: CriContainerd) -> None:
    container = await shared_pod.run("sleep", "1000")
    async with events(containerd) as followed:
        await container.exec("sh", "-c", "exit 4")
        exit = await followed.until("/tasks/exit", container_id=container.id, exit_status=4)
        assert exit["id"] != container.id
        assert followed.topics(container.id) == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]
    await container.remove()


async def test_every_container_of_a_pod_tells_its_end_when_the_pod_is_stopped(
    pods: Pods, containerd: CriContainerd
) -> None:
    async with pods.run() as pod:
        containers = [await pod.run("sleep", "1000") for _ in range(3)]
        async with events(containerd) as followed:
            await pod.stop()
            await followed.until("/tasks/delete", container_id=pod.id)
            for container in containers:
                assert followed.topics(container.id)[:2] == ["/tasks/exit", "/tasks/delete"]
            assert followed.topics(pod.id) == ["/tasks/exit", "/tasks/delete"]


async def test_all_events_of_a_container_name_one_process(shared_pod: Pod, containerd: CriContainerd) -> None:
    async with events(containerd) as followed:
        container = await shared_pod.run("true")
        await followed.until("/tasks/exit", container_id=container.id)
        named = {event["pid"] for _, event in followed.seen if event.get("container_id") == container.id}
        assert len(named) == 1
        assert named != {0}
    await container.remove()
