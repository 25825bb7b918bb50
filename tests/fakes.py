"""Stand-ins for what a sandbox stands on: a guest's agent, and the manager's streams.

The agent is a real ttrpc service that keeps upstream's rules (kata-agent: Processes and streams): WaitProcess
forgets the process and its streams, SIGKILL without an exec id reaches all of a container.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from google.protobuf.empty_pb2 import Empty

from kata_protos import agent_pb2, agent_types_pb2, health_pb2
from kata_protos.agent_ttrpc import AgentService
from kata_protos.health_ttrpc import HealthService
from kata_py.hypervisor.api import HypervisorError, VmSpec
from kata_py.resource.journal import Journal
from kata_py.sandbox.stdio import StdioSpec
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.service import Entry
from kata_py.ttrpc.status import Code
from tests.drivers.memory import MemoryHypervisor, MemoryVm
from tests.tasks import make_configuration

SIGKILL = 9


class GuestProcess:
    """A process of the fake guest; the test is the program."""

    def __init__(self) -> None:
        self.outputs: dict[str, asyncio.Queue[bytes]] = {"stdout": asyncio.Queue(), "stderr": asyncio.Queue()}
        self.stdin = bytearray()
        self.stdin_closed = asyncio.Event()
        self.signals: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes, stream: str = "stdout") -> None:
        self.outputs[stream].put_nowait(data)

    def exit(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)
            for output in self.outputs.values():
                output.put_nowait(b"")

    async def read(self, stream: str) -> bytes:
        output = self.outputs[stream]
        data = await output.get()
        if not data:
            output.put_nowait(b"")
        return data


def _unimplemented(name: str) -> Any:
    async def method(self: object, request: object, context: Context) -> Empty:
        raise StatusError(Code.UNIMPLEMENTED, f"{name} is not supported")

    return method


_Rest: Any = type(
    "_Rest", (AgentService,), {name: _unimplemented(name) for name in sorted(AgentService.__abstractmethods__)}
)


class FakeAgent(_Rest):  # type: ignore[misc]  # made of whatever methods the protocol has
    """`calls` are the methods called, in order; `hangs` those that wait for `release`, `fails` those that fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hangs: set[str] = set()
        self._released = asyncio.Event()
        self.fails: dict[str, StatusError] = {}
        self.sandbox: agent_pb2.CreateSandboxRequest | None = None
        self.containers: dict[str, agent_pb2.CreateContainerRequest] = {}
        self.execs: dict[str, agent_pb2.ExecProcessRequest] = {}
        self.processes: dict[tuple[str, str], GuestProcess] = {}
        self.resources: list[Any] = []
        self.stats = agent_pb2.StatsContainerResponse()
        self.interfaces: list[agent_types_pb2.Interface] = []
        self.routes: list[agent_types_pb2.Route] = []
        self.missing_links = 0  # calls until the guest has the link it is told of
        self.ooms: asyncio.Queue[str] = asyncio.Queue()

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        return {
            name: (self._watched(name, handler), *rest)
            for name, (handler, *rest) in super().ttrpc_methods().items()
        }  # fmt: skip

    def _watched(self, name: str, handler: Any) -> Any:
        @wraps(handler)
        async def call(request: Any, context: Context) -> Any:
            self.calls.append(name)
            await self.hang(name, context)
            if name in self.fails:
                raise self.fails[name]
            return await handler(request, context)

        return call

    async def hang(self, name: str, context: Context) -> None:
        while name in self.hangs:
            context.cancel_if_abandoned()
            await self._released.wait()

    def release(self) -> None:
        """Let what hangs go on."""
        self.hangs.clear()
        self._released.set()

    def process(self, container_id: str, exec_id: str = "") -> GuestProcess:
        try:
            return self.processes[container_id, exec_id]
        except KeyError:
            raise StatusError(Code.NOT_FOUND, f"process {exec_id!r} of {container_id} not found") from None

    async def CreateSandbox(self, request: agent_pb2.CreateSandboxRequest, context: Context) -> Empty:
        self.sandbox = request
        return Empty()

    async def DestroySandbox(self, request: agent_pb2.DestroySandboxRequest, context: Context) -> Empty:
        for process in self.processes.values():
            process.exit(128 + SIGKILL)
        return Empty()

    async def SetGuestDateTime(self, request: agent_pb2.SetGuestDateTimeRequest, context: Context) -> Empty:
        return Empty()

    async def ReseedRandomDev(self, request: agent_pb2.ReseedRandomDevRequest, context: Context) -> Empty:
        return Empty()

    async def UpdateInterface(
        self, request: agent_pb2.UpdateInterfaceRequest, context: Context
    ) -> agent_types_pb2.Interface:
        if self.missing_links:
            self.missing_links -= 1
            raise StatusError(Code.INTERNAL, "update interface: Link not found (Address: ...)")
        self.interfaces.append(request.interface)
        return request.interface

    async def UpdateRoutes(self, request: agent_pb2.UpdateRoutesRequest, context: Context) -> agent_pb2.Routes:
        self.routes = list(request.routes.Routes)
        return request.routes

    async def AddARPNeighbors(self, request: agent_pb2.AddARPNeighborsRequest, context: Context) -> Empty:
        return Empty()

    async def CreateContainer(self, request: agent_pb2.CreateContainerRequest, context: Context) -> Empty:
        self.containers[request.container_id] = request
        self.processes[request.container_id, ""] = GuestProcess()
        return Empty()

    async def RemoveContainer(self, request: agent_pb2.RemoveContainerRequest, context: Context) -> Empty:
        del self.containers[request.container_id]
        for container_id, exec_id in list(self.processes):
            if container_id == request.container_id:
                self.processes.pop((container_id, exec_id)).exit(128 + SIGKILL)
        return Empty()

    async def GetOOMEvent(self, request: agent_pb2.GetOOMEventRequest, context: Context) -> agent_pb2.OOMEvent:
        context.cancel_if_abandoned()
        return agent_pb2.OOMEvent(container_id=await self.ooms.get())

    async def StartContainer(self, request: agent_pb2.StartContainerRequest, context: Context) -> Empty:
        self.process(request.container_id)
        return Empty()

    async def ExecProcess(self, request: agent_pb2.ExecProcessRequest, context: Context) -> Empty:
        self.execs[request.exec_id] = request
        self.processes[request.container_id, request.exec_id] = GuestProcess()
        return Empty()

    async def SignalProcess(self, request: agent_pb2.SignalProcessRequest, context: Context) -> Empty:
        target = self.process(request.container_id, request.exec_id)
        everyone = request.signal == SIGKILL and not request.exec_id
        in_container = [process for (id, _), process in self.processes.items() if id == request.container_id]
        for process in in_container if everyone else [target]:
            process.signals.append(request.signal)
            if request.signal == SIGKILL:
                process.exit(128 + SIGKILL)
        return Empty()

    async def WaitProcess(
        self, request: agent_pb2.WaitProcessRequest, context: Context
    ) -> agent_pb2.WaitProcessResponse:
        status = await self.process(request.container_id, request.exec_id).status
        self.processes.pop((request.container_id, request.exec_id), None)
        return agent_pb2.WaitProcessResponse(status=status)

    async def WriteStdin(
        self, request: agent_pb2.WriteStreamRequest, context: Context
    ) -> agent_pb2.WriteStreamResponse:
        self.process(request.container_id, request.exec_id).stdin += request.data
        return agent_pb2.WriteStreamResponse(len=len(request.data))

    async def CloseStdin(self, request: agent_pb2.CloseStdinRequest, context: Context) -> Empty:
        self.process(request.container_id, request.exec_id).stdin_closed.set()
        return Empty()

    async def ReadStdout(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        context.cancel_if_abandoned()
        data = await self.process(request.container_id, request.exec_id).read("stdout")
        return agent_pb2.ReadStreamResponse(data=data)

    async def ReadStderr(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        context.cancel_if_abandoned()
        data = await self.process(request.container_id, request.exec_id).read("stderr")
        return agent_pb2.ReadStreamResponse(data=data)

    async def TtyWinResize(self, request: agent_pb2.TtyWinResizeRequest, context: Context) -> Empty:
        self.process(request.container_id, request.exec_id).sizes.append((request.row, request.column))
        return Empty()

    async def PauseContainer(self, request: agent_pb2.PauseContainerRequest, context: Context) -> Empty:
        return Empty()

    async def ResumeContainer(self, request: agent_pb2.ResumeContainerRequest, context: Context) -> Empty:
        return Empty()

    async def UpdateContainer(self, request: agent_pb2.UpdateContainerRequest, context: Context) -> Empty:
        self.resources.append(request.resources)
        return Empty()

    async def StatsContainer(
        self, request: agent_pb2.StatsContainerRequest, context: Context
    ) -> agent_pb2.StatsContainerResponse:
        return self.stats


class FakeHealth(HealthService):
    """The agent's health; silent while its agent hangs in `Check`."""

    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent

    async def Check(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        await self._agent.hang("Check", context)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Version(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.VersionCheckResponse:
        return health_pb2.VersionCheckResponse(agent_version="fake")


class FakeHypervisor(MemoryHypervisor):
    """A driver of machines with a `FakeAgent`.

    `error` is raised by the next launch; `leave` holds back the end of a machine, `leaving` tells of it.
    """

    def __init__(self, agent: FakeAgent) -> None:
        super().__init__(make_configuration(), lambda: [agent, FakeHealth(agent)])
        self.specs: list[VmSpec] = []
        self.error: HypervisorError | None = None
        self.leaving = asyncio.Event()
        self.leave = asyncio.Event()
        self.leave.set()

    @property
    def vm(self) -> MemoryVm:
        return self.machines[-1]

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[MemoryVm]:
        self.specs.append(spec)
        if self.error is not None:
            raise self.error
        async with super().launch(spec, journal) as vm:
            try:
                yield vm
            finally:
                self.leaving.set()
                await self.leave.wait()


class MemoryStdio:
    """A process's streams in memory: `stdin` is what the manager writes; `reading` is cleared to stall it."""

    def __init__(self, spec: StdioSpec) -> None:
        self.spec = spec
        self.has_stdin = bool(spec.stdin)
        self.stdin: asyncio.Queue[bytes] = asyncio.Queue()
        self.written: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.reading = asyncio.Event()
        self.reading.set()
        self.asked = asyncio.Event()
        self.is_drained = asyncio.Event()
        self.is_drained.set()
        self.closed = False

    async def read_stdin(self) -> bytes:
        return await self.stdin.get()

    def close_stdin(self) -> None:
        self.stdin.put_nowait(b"")

    async def write_stdout(self, data: bytes) -> None:
        await self._write("stdout", data)

    async def write_stderr(self, data: bytes) -> None:
        await self._write("stderr", data)

    async def drained(self) -> None:
        await self.is_drained.wait()

    async def _write(self, stream: str, data: bytes) -> None:
        assert not self.closed
        self.asked.set()
        await self.reading.wait()
        self.written[stream] += data


class MemoryOpener:
    """Opens `MemoryStdio`s, kept by the path of their stdout.

    `error` is raised instead if it is set; `ready` is cleared to hold it back, as a slow logger does.
    """

    def __init__(self) -> None:
        self.opened: dict[str, MemoryStdio] = {}
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.ready.set()
        self.stalled = False
        self.undrained = False

    @asynccontextmanager
    async def __call__(self, spec: StdioSpec, container_id: str, namespace: str) -> AsyncIterator[MemoryStdio]:
        if self.error is not None:
            raise self.error
        self.asked.set()
        await self.ready.wait()
        stdio = self.opened[spec.stdout] = MemoryStdio(spec)
        if self.stalled:
            stdio.reading.clear()
        if self.undrained:
            stdio.is_drained.clear()
        try:
            yield stdio
        finally:
            stdio.closed = True
