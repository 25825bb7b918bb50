"""Pods and containers as a kubelet runs them, for tests to say what they want in a line."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.cri import log, streams
from tests.cri.client import CALL_TIMEOUT, Cri, CriError
from tests.cri.proto import cri_pb2 as cri
from tools import oci_image

EXIT_TIMEOUT = 30.0  # seconds
_PAUSE = 0.02  # seconds between looks
_numbers = count(1)

POD, CONTAINER, NODE, TARGET = cri.POD, cri.CONTAINER, cri.NODE, cri.TARGET
CREATED, RUNNING, EXITED = cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED
READY, NOT_READY = cri.SANDBOX_READY, cri.SANDBOX_NOTREADY


async def attempts(timeout: float, complaint: str) -> AsyncIterator[None]:
    """Moments to look again at what has no event: the CRI of containerd 1.6 tells of changes only who asks.

    Raises:
        TimeoutError: That many seconds have passed; the text is the complaint.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        yield
        await asyncio.sleep(_PAUSE)
    raise TimeoutError(f"{complaint} after {timeout:g} s")


async def removing(remove: Callable[[], Awaitable[object]], what: str) -> None:
    """Remove something as a kubelet does: again, where containerd refuses what it has stopped.

    It answers a stop of a container whose task has just gone before it has noted the end that it was told of.

    Raises:
        CriError: It refuses for another reason.
        TimeoutError: It goes on refusing.
    """
    async for _ in attempts(EXIT_TIMEOUT, f"{what} is stopped, but not removed"):
        try:
            await remove()
        except CriError as error:
            if "container is still running" not in str(error):
                raise
        else:
            return


async def begin(client: Cri, request: cri.RunPodSandboxRequest, timeout: float = CALL_TIMEOUT) -> Pod:
    """Run a pod, which the caller ends; whoever is cancelled meanwhile leaves none.

    A manager whose call is cancelled undoes it in its own time, and one that is stopped after that leaves half a pod:
    so the start is waited for, and what has started is ended.

    Raises:
        CriError: The manager refused, or the pod has not started within that many seconds.
    """
    name = request.config.metadata.name
    starting = asyncio.create_task(client.run_pod(request, timeout=timeout), name=f"start of {name}")
    try:
        return Pod(client, (await asyncio.shield(starting)).pod_sandbox_id, request.config)
    except asyncio.CancelledError:
        print(f"\ninterrupted: {name} is ended once it has started", file=sys.stderr)
        with suppress(CriError):  # it did not start: nothing is there to end
            await Pod(client, (await starting).pod_sandbox_id, request.config).end()
        raise


def pid_of(command: str) -> str:
    """A script that prints the ids of the processes that run exactly that command."""
    return f'for p in /proc/[0-9]*; do [ "$(tr "\\0" " " < $p/cmdline)" = "{command} " ] && echo ${{p#/proc/}}; done'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


class Container:
    """One container of a pod.

    Attributes:
        id: Its id.
        log_path: Its log.
    """

    def __init__(self, client: Cri, id: str, log_path: Path) -> None:
        self.id = id
        self.log_path = log_path
        self._cri = client

    async def start(self) -> None:
        await self._cri.start(cri.StartContainerRequest(container_id=self.id))

    async def stop(self, grace: int = 10) -> None:
        """Stop it: its stop signal, and SIGKILL that many seconds later."""
        await self._cri.stop(cri.StopContainerRequest(container_id=self.id, timeout=grace))

    async def remove(self) -> None:
        request = cri.RemoveContainerRequest(container_id=self.id)
        await removing(lambda: self._cri.remove(request), f"container {self.id}")

    async def status(self) -> cri.ContainerStatus:
        return (await self._cri.container_status(cri.ContainerStatusRequest(container_id=self.id))).status

    async def spec(self) -> dict[str, Any]:
        """The OCI spec that the manager made of its configuration."""
        request = cri.ContainerStatusRequest(container_id=self.id, verbose=True)
        spec: dict[str, Any] = json.loads((await self._cri.container_status(request)).info["info"])["runtimeSpec"]
        return spec

    async def exited(self, timeout: float = EXIT_TIMEOUT) -> cri.ContainerStatus:
        """Wait for its end and return its status."""
        async for _ in attempts(timeout, f"container {self.id} has not ended"):
            if (status := await self.status()).state == EXITED:
                return status
        raise AssertionError

    async def exec(self, *argv: str, timeout: int = 0) -> Outcome:
        """Run a command in it to its end; a timeout in seconds, 0 is none."""
        request = cri.ExecSyncRequest(container_id=self.id, cmd=argv, timeout=timeout)
        response = await self._cri.exec_sync(request)
        return Outcome(response.exit_code, response.stdout, response.stderr)

    async def sh(self, script: str) -> str:
        """What a script prints that must succeed, without the last end of line."""
        outcome = await self.exec("sh", "-c", script)
        assert outcome.code == 0, f"{script}: {outcome}"
        return outcome.stdout.decode().rstrip("\n")

    @asynccontextmanager
    async def executing(self, *argv: str, stdin: bool = False, tty: bool = False) -> AsyncIterator[streams.Session]:
        """Run a command in it with its streams at hand."""
        request = cri.ExecRequest(
            container_id=self.id, cmd=argv, stdin=stdin, stdout=True, stderr=not tty, tty=tty
        )  # fmt: skip
        async with streams.session((await self._cri.exec(request)).url) as session:
            yield session

    @asynccontextmanager
    async def attached(self, *, stdin: bool = False, tty: bool = False) -> AsyncIterator[streams.Session]:
        """Its own streams at hand."""
        request = cri.AttachRequest(container_id=self.id, stdin=stdin, stdout=True, stderr=not tty, tty=tty)
        async with streams.session((await self._cri.attach(request)).url) as session:
            yield session

    async def update(self, **resources: Any) -> None:
        request = cri.UpdateContainerResourcesRequest(
            container_id=self.id, linux=cri.LinuxContainerResources(**resources)
        )  # fmt: skip
        await self._cri.update(request)

    async def stats(self) -> cri.ContainerStats:
        return (await self._cri.stats(cri.ContainerStatsRequest(container_id=self.id))).stats

    async def reopen_log(self) -> None:
        await self._cri.reopen_log(cri.ReopenContainerLogRequest(container_id=self.id))

    def output(self, stream: str = "stdout") -> bytes:
        """What it has written so far, by its log."""
        return log.content(self.log_path, stream)

    async def wrote(self, expected: bytes, stream: str = "stdout", timeout: float = EXIT_TIMEOUT) -> None:
        """Wait until its log has this."""
        async for _ in attempts(timeout, f"{expected!r} is not in {self.log_path}"):
            if expected in self.output(stream):
                return


class Pod:
    """A pod that runs.

    Attributes:
        id: Its sandbox's id.
        config: As it was asked for.
    """

    def __init__(self, client: Cri, id: str, config: cri.PodSandboxConfig) -> None:
        self.id = id
        self.config = config
        self._cri = client

    async def stop(self) -> None:
        await self._cri.stop_pod(cri.StopPodSandboxRequest(pod_sandbox_id=self.id))

    async def remove(self) -> None:
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=self.id)
        await removing(lambda: self._cri.remove_pod(request), f"pod {self.id}")

    async def end(self) -> None:
        """Stop and remove it."""
        await self.stop()
        await self.remove()

    async def status(self) -> cri.PodSandboxStatus:
        return (await self._cri.pod_status(cri.PodSandboxStatusRequest(pod_sandbox_id=self.id))).status

    async def info(self) -> dict[str, Any]:
        """What containerd knows of it besides: pid, runtime spec, snapshot ..."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=True)
        info: dict[str, Any] = json.loads((await self._cri.pod_status(request)).info["info"])
        return info

    async def becomes(self, state: cri.PodSandboxState, timeout: float = EXIT_TIMEOUT) -> None:
        """Wait until it is in that state."""
        async for _ in attempts(timeout, f"pod {self.id} is not {cri.PodSandboxState.Name(state)}"):
            if (await self.status()).state == state:
                return

    async def create(self, *argv: str, name: str = "", attempt: int = 0, **config: Any) -> Container:
        """Create a container that runs a command; `config` is fields of ContainerConfig.

        Security that is not told leaves the process namespace to the container, as Kubernetes does.
        """
        name = name or f"c{next(_numbers)}"
        log_path = f"{name}-{attempt}.log"
        config.setdefault("image", cri.ImageSpec(image=oci_image.REFERENCE, user_specified_image=oci_image.REFERENCE))
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.id,
            config=cri.ContainerConfig(
                metadata=cri.ContainerMetadata(name=name, attempt=attempt), command=argv, log_path=log_path, **config
            ),
            sandbox_config=self.config,
        )
        linux = request.config.linux
        if not linux.security_context.HasField("namespace_options"):
            linux.security_context.namespace_options.pid = CONTAINER
        id = (await self._cri.create(request)).container_id
        return Container(self._cri, id, Path(self.config.log_directory) / log_path)

    async def run(self, *argv: str, **config: Any) -> Container:
        """Create and start a container; see `create`."""
        container = await self.create(*argv, **config)
        await container.start()
        return container

    async def outcome(self, *argv: str, **config: Any) -> Outcome:
        """Run a container to its end and remove it."""
        container = await self.run(*argv, **config)
        status = await container.exited()
        await container.remove()
        return Outcome(status.exit_code, container.output(), container.output("stderr"))

    async def containers(self) -> dict[str, cri.ContainerState]:
        """The states of its containers, by name."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=self.id))
        listed = (await self._cri.list_containers(request)).containers
        return {container.metadata.name: container.state for container in listed}


class Pods:
    """Runs pods.

    Args:
        client: The manager.
        handler: The runtime handler they run under.
        logs: Where their logs go.
    """

    def __init__(self, client: Cri, handler: str, logs: Path) -> None:
        self.cri = client
        self._handler = handler
        self._logs = logs

    def config(self, name: str = "", **config: Any) -> cri.PodSandboxConfig:
        """A pod's configuration; `config` is fields of PodSandboxConfig."""
        name = name or f"pod{next(_numbers)}"
        config.setdefault("hostname", name)
        config.setdefault("metadata", cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="tests"))
        made = cri.PodSandboxConfig(log_directory=str(self._logs / name), **config)
        context = made.linux.security_context
        if not context.HasField("namespace_options"):
            context.namespace_options.pid = CONTAINER
        return made

    async def start(self, config: cri.PodSandboxConfig) -> Pod:
        """Run a pod, which the caller ends."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=self._handler)
        return await begin(self.cri, request)

    @asynccontextmanager
    async def run(self, name: str = "", **config: Any) -> AsyncIterator[Pod]:
        """A pod as long as the context lasts."""
        pod = await self.start(self.config(name, **config))
        try:
            yield pod
        finally:
            await pod.end()

    async def all(self) -> list[str]:
        """The ids of all pods there are."""
        return [pod.id for pod in (await self.cri.list_pods(cri.ListPodSandboxRequest())).items]

    async def remove_all_but(self, kept: Collection[str]) -> None:
        """End the pods that a failed test has left."""
        for id in await self.all():
            if id not in kept:
                await self.cri.stop_pod(cri.StopPodSandboxRequest(pod_sandbox_id=id))
                await self.cri.remove_pod(cri.RemovePodSandboxRequest(pod_sandbox_id=id))

    async def containers(self) -> list[str]:
        """The ids of all containers there are."""
        listed = (await self.cri.list_containers(cri.ListContainersRequest())).containers
        return [container.id for container in listed]

    async def remove_containers_but(self, kept: Collection[str]) -> None:
        """Remove the containers that a failed test has left."""
        for id in await self.containers():
            if id not in kept:
                await self.cri.remove(cri.RemoveContainerRequest(container_id=id))
