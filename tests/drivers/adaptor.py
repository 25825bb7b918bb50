"""An adaptor whose machines are services in this process: what the service `hypervisor.Hypervisor` means, in a page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorService
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.service import Service
from kata_py.ttrpc.status import Code
from tests.drivers.memory import Healthy


class FakeAdaptor(HypervisorService):
    """Serves machines; `created`, `started` and `stopped` tell what it was asked for.

    Args:
        directory: Where the agents' sockets go.
        agent: Makes the services of a machine's agent.
    """

    def __init__(self, directory: Path, agent: Callable[[], Sequence[Service]] = lambda: [Healthy()]) -> None:
        self._directory = directory
        self._agent = agent
        self._machines: dict[str, Server] = {}
        self.created: list[hv.CreateVMRequest] = []
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.entered = asyncio.Event()
        self.gate: asyncio.Event | None = None  # holds starts
        self.start_error: StatusError | None = None
        self.stop_error: StatusError | None = None

    async def CreateVM(self, request: hv.CreateVMRequest, context: Context) -> hv.CreateVMResponse:
        self.created.append(request)
        self._machines[request.id] = Server()
        return hv.CreateVMResponse(agentSocketPath=str(self._socket(request.id)))

    async def StartVM(self, request: hv.StartVMRequest, context: Context) -> hv.StartVMResponse:
        if self.start_error is not None:
            raise self.start_error
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        machine = self._machines[request.id]
        if request.id in self.started:
            return hv.StartVMResponse()
        for service in self._agent():
            machine.add(service)
        await machine.listen(UnixAddress(str(self._socket(request.id))))
        self.started.append(request.id)
        return hv.StartVMResponse()

    async def StopVM(self, request: hv.StopVMRequest, context: Context) -> hv.StopVMResponse:
        if self.stop_error is not None:
            raise self.stop_error
        if request.id not in self._machines:
            raise StatusError(Code.UNKNOWN, f"stopping VM: sandbox {request.id} does not exist")
        self.stopped.append(request.id)
        self._machines.pop(request.id).close()
        self._socket(request.id).unlink(missing_ok=True)
        return hv.StopVMResponse()

    async def Version(self, request: hv.VersionRequest, context: Context) -> hv.VersionResponse:
        return hv.VersionResponse(version="0.0.0")

    def close(self) -> None:
        """End what machines are left."""
        for machine in self._machines.values():
            machine.close()

    @property
    def machines(self) -> list[str]:
        """The sandboxes that have one."""
        return list(self._machines)

    def _socket(self, id: str) -> Path:
        return self._directory / f"{id}.ttrpc"


@asynccontextmanager
async def serving(socket: Path, adaptor: HypervisorService) -> AsyncIterator[None]:
    """An adaptor that listens at a socket."""
    server = Server()
    server.add(adaptor)
    async with AsyncExitStack() as stack:
        await server.listen(UnixAddress(str(socket)))
        stack.callback(server.close)
        if isinstance(adaptor, FakeAdaptor):
            stack.callback(adaptor.close)
        yield
