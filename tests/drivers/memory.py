"""A hypervisor driver whose machines are a sleeping process and a service in this one: what the interface means,
in a page.

For tests of everything above a driver. The agent is whatever services the test gives; without any, one that only
answers `Check`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from kata_protos import health_pb2
from kata_protos.health_ttrpc import HealthService
from kata_py.config.model import Configuration
from kata_py.hypervisor.api import Device, GuestDevice, HypervisorError, SharedDirectory, VmExit, VmSpec
from kata_py.resource.journal import Journal, undone
from kata_py.resource.process import spawn
from kata_py.resource.undo import RemoveTree
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.service import Service

CLOSE_TIMEOUT = 5.0  # seconds


class Healthy(HealthService):
    """An agent that is well, and nothing else."""

    async def Check(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Version(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.VersionCheckResponse:
        return health_pb2.VersionCheckResponse(grpc_version="0.0.1", agent_version="memory")


class MemoryVm:
    """A running machine; satisfies `kata_py.hypervisor.api.Vm`."""

    def __init__(self, agent: UnixAddress, child: asyncio.subprocess.Process) -> None:
        self.agent = agent
        self.attached: list[Device] = []
        self._detachable: dict[str, Device] = {}
        self._child = child
        self._exit: asyncio.Future[VmExit] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return self._child.pid

    def console_tail(self) -> tuple[str, ...]:
        return ("sleeping",)

    async def wait(self) -> VmExit:
        return await asyncio.shield(self._exit)

    async def attach(self, device: Device) -> GuestDevice:
        if self._exit.done():
            raise HypervisorError("memory", f"the machine has ended: {self._exit.result().cause}")
        self.attached.append(device)
        given = GuestDevice(f"device{len(self.attached)}", f"{len(self.attached):02x}/00")
        self._detachable |= {} if isinstance(device, SharedDirectory) else {given.id: device}
        return given

    async def detach(self, device: GuestDevice) -> None:
        if device.id not in self._detachable:
            raise HypervisorError("memory", f"{device.id} was not plugged in")
        del self._detachable[device.id]

    def end(self, cause: str, *, expected: bool = False) -> None:
        """The machine has ended; the first cause counts."""
        if not self._exit.done():
            self._exit.set_result(VmExit(cause, expected, self.console_tail()))

    async def watch(self) -> None:
        """Notice the end of the machine's process."""
        status = await self._child.wait()
        self.end(f"machine was killed by signal {-status}" if status < 0 else f"machine exited with status {status}")


class MemoryHypervisor:
    """The driver; satisfies `kata_py.hypervisor.api.Hypervisor`.

    Args:
        configuration: As every driver gets; nothing in it matters here.
        agent: Makes the services of a machine's agent.
    """

    name = "memory"

    def __init__(
        self, configuration: Configuration, agent: Callable[[], Sequence[Service]] = lambda: [Healthy()]
    ) -> None:
        self._agent = agent
        self.machines: list[MemoryVm] = []

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[MemoryVm]:
        async with AsyncExitStack() as stack:
            try:
                vm = await self._start(spec, journal, stack)
            except OSError as error:
                raise HypervisorError("memory", str(error)) from error
            try:
                yield vm
            finally:
                vm.end("stopped", expected=True)

    async def _start(self, spec: VmSpec, journal: Journal, stack: AsyncExitStack) -> MemoryVm:
        if spec.directory.exists():
            raise HypervisorError("memory", f"{spec.directory} is there already")
        with journal.span("memory"):
            stack.enter_context(undone(journal, RemoveTree(str(spec.directory))))
            spec.directory.mkdir(parents=True)
            server = Server()
            for service in self._agent():
                server.add(service)
            address = UnixAddress(str(spec.directory / "agent.sock"))
            await server.listen(address)
            stack.push_async_callback(server.wait_closed, CLOSE_TIMEOUT)
            stack.callback(server.close)
            line = ["/bin/sleep", "infinity"]
            child = await stack.enter_async_context(spawn(journal, "machine", line))
        vm = MemoryVm(address, child)
        watching = asyncio.create_task(vm.watch(), name=f"end of machine {child.pid}")
        stack.callback(watching.cancel)
        self.machines.append(vm)
        return vm
