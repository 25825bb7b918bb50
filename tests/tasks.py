"""The Task service as a manager meets it, with everything around it in reach of a test."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos import task_v2_pb2 as task
from kata_protos.mount_pb2 import Mount
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.config.model import AgentConfig, Configuration, HypervisorConfig, RuntimeConfig, Source
from kata_py.hypervisor.api import Hypervisor
from kata_py.sandbox.events import Event, EventQueue, Topic
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.stdio import StdioOpener
from kata_py.shim.service import TaskService
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.server import Server
from tests import bundle

PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
CALL_TIMEOUT = 30.0  # seconds


@dataclass
class Tasks:
    """A Task service behind a real Unix socket, and a manager that calls it."""

    top: Path
    service: TaskService
    client: TaskClient
    paths: HostPaths
    rootfs: Path
    events: list[Event] = field(default_factory=list)
    shut_downs: list[None] = field(default_factory=list)

    @property
    def topics(self) -> list[Topic]:
        return [event.topic for event in self.events]

    def records(self) -> list[str]:
        return sorted(path.name for path in self.paths.records.glob("*"))

    def record(self, id: str = "c1") -> Record:
        return Record.load(id, root=self.paths.records)

    def leftovers(self) -> list[Path]:
        """What lies in the host's places that should be empty once a sandbox has gone."""
        places = (self.paths.records, self.paths.machines, self.paths.shares)
        return [path for place in places for path in place.glob("*")]

    def request(
        self, id: str = "c1", args: Sequence[str] = ("true",), *, spec: dict[str, Any] | None = None, **fields: Any
    ) -> task.CreateTaskRequest:
        """A Create as containerd sends it, after the bundle was made."""
        directory = self.top / "bundles" / id
        terminal = fields.get("terminal", False)
        written = spec or bundle.spec(id, "rootfs", bundle.process(args, terminal=terminal))
        bundle.write(directory, written)
        fields.setdefault("stdout", f"{id}-stdout")
        fields.setdefault("rootfs", [Mount(type="bind", source=str(self.rootfs), options=["rbind", "rw"])])
        return task.CreateTaskRequest(id=id, bundle=str(directory), **fields)

    async def create(
        self, id: str = "c1", args: Sequence[str] = ("true",), *, timeout: float | None = CALL_TIMEOUT, **fields: Any
    ) -> task.CreateTaskResponse:
        return await self.client.Create(self.request(id, args, **fields), timeout=timeout)

    async def create_pod(self, id: str = "p1", **fields: Any) -> task.CreateTaskResponse:
        """A pod's sandbox container, as containerd's CRI plugin asks for it."""
        return await self.create(id, spec=self.pod_spec(id, "sandbox", id, ["sleep", "100000"]), **fields)

    async def create_in_pod(
        self, id: str, args: Sequence[str] = ("true",), *, pod: str = "p1", timeout: float | None = CALL_TIMEOUT,
        **fields: Any,
    ) -> task.CreateTaskResponse:  # fmt: skip
        """A further container of a pod."""
        return await self.create(id, spec=self.pod_spec(id, "container", pod, args), timeout=timeout, **fields)

    @staticmethod
    def pod_spec(id: str, kind: str, pod: str, args: Sequence[str]) -> dict[str, Any]:
        """The spec of a container in a pod."""
        written = bundle.spec(id, "rootfs", bundle.process(args))
        prefix = "io.kubernetes.cri."
        return {**written, "annotations": {f"{prefix}container-type": kind, f"{prefix}sandbox-id": pod}}

    async def start(self, id: str = "c1", exec_id: str = "") -> task.StartResponse:
        return await self.client.Start(task.StartRequest(id=id, exec_id=exec_id), timeout=CALL_TIMEOUT)

    async def run(self, id: str = "c1", args: Sequence[str] = ("true",), **fields: Any) -> None:
        await self.create(id, args, **fields)
        await self.start(id)

    async def exec(self, exec_id: str, args: Sequence[str] = ("true",), *, id: str = "c1", **fields: Any) -> None:
        process = bundle.process(args, terminal=fields.get("terminal", False))
        fields.setdefault("stdout", f"{id}-{exec_id}-stdout")
        fields.setdefault("spec", AnyMessage(type_url=PROCESS, value=json.dumps(process).encode()))
        request = task.ExecProcessRequest(id=id, exec_id=exec_id, **fields)
        await self.client.Exec(request, timeout=CALL_TIMEOUT)

    async def wait(self, id: str = "c1", exec_id: str = "") -> task.WaitResponse:
        return await self.client.Wait(task.WaitRequest(id=id, exec_id=exec_id), timeout=CALL_TIMEOUT)

    async def state(self, id: str = "c1", exec_id: str = "") -> task.StateResponse:
        return await self.client.State(task.StateRequest(id=id, exec_id=exec_id), timeout=CALL_TIMEOUT)

    async def kill(self, signal: int, id: str = "c1", exec_id: str = "") -> None:
        await self.client.Kill(task.KillRequest(id=id, exec_id=exec_id, signal=signal), timeout=CALL_TIMEOUT)

    async def delete(self, id: str = "c1", exec_id: str = "") -> task.DeleteResponse:
        return await self.client.Delete(task.DeleteRequest(id=id, exec_id=exec_id), timeout=CALL_TIMEOUT)

    async def shut_down(self, *, now: bool = False) -> None:
        await self.client.Shutdown(task.ShutdownRequest(id="c1", now=now), timeout=CALL_TIMEOUT)

    async def event(self, topic: Topic, count: int = 1) -> Event:
        """Wait for the event of that topic; the last of `count`."""
        await until(lambda: self.topics.count(topic) >= count)
        return [event for event in self.events if event.topic is topic][count - 1]


@asynccontextmanager
async def serving(
    top: Path,
    driver: Callable[[Configuration], Hypervisor],
    open_stdio: StdioOpener,
    *,
    configuration: Configuration | None = None,
    load_configuration: Callable[[Source], Configuration] | None = None,
    rootfs: Path | None = None,
) -> AsyncIterator[Tasks]:
    """Serve tasks with that driver; at the end whatever still runs is ended.

    Args:
        top: A directory with a short path.
        driver: Makes the hypervisor driver.
        open_stdio: Opens streams.
        configuration: What every runtime class says.
        load_configuration: Reads what a runtime class says, instead.
        rootfs: The containers' root file system; None is an empty one.
    """
    paths = host_paths(top, f"/kata-py-tests-{os.getpid()}")
    configured = configuration or make_configuration()
    if rootfs is None:
        rootfs = top / "rootfs"
        rootfs.mkdir()
    events: list[Event] = []
    shut_downs: list[None] = []

    async def publish(event: Event) -> None:
        events.append(event)

    queue = EventQueue(publish)
    async with queue.sending():
        service = TaskService(
            "default",
            events=queue,
            open_stdio=open_stdio,
            shut_down=lambda: shut_downs.append(None),
            load_configuration=load_configuration or (lambda named: configured),
            find_driver=driver,
            paths=paths,
        )
        server = Server()
        server.add(service)
        address = UnixAddress(str(top / "task.sock"))
        await server.listen(address)
        try:
            async with connect(address, timeout=5.0) as client:
                yield Tasks(top, service, TaskClient(client), paths, rootfs, events, shut_downs)
        finally:
            await service.aclose()
            server.close()
            await server.wait_closed(1.0)


def make_configuration(name: str = "fake", *, dial_timeout: int = 10, create_timeout: int = 20) -> Configuration:
    """A configuration of a small machine."""
    return Configuration(
        hypervisor=HypervisorConfig(name=name, default_memory=512),
        source=Path("/etc/kata-containers/configuration.toml"),
        agent=AgentConfig(dial_timeout=dial_timeout),
        runtime=RuntimeConfig(create_container_timeout=create_timeout),
    )


def host_paths(top: Path, overhead: str) -> HostPaths:
    """All that a shim keeps on a host, below a directory; but for the cgroup."""
    return HostPaths(top / "sbs", top / "vm", top / "shared", top / "boots", overhead, top / "failures", top / "shims")


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
