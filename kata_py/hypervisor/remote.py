"""Machines that an adaptor on this node makes elsewhere, in a cloud: the hypervisor `remote`.

The adaptor is told of the pod and gives the socket behind which the machine's agent answers; starting the machine
returns once it does. All else of the machine is out of reach: no device can be plugged in, nobody tells how it ends.
Source: kata `virtcontainers/remote.go`; the service is `hypervisor.proto`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kata_protos import hypervisor_pb2
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.config.model import Configuration
from kata_py.hypervisor.api import Device, GuestDevice, HypervisorError, VmExit, VmSpec
from kata_py.resource.journal import Journal
from kata_py.resource.peer import StopPeer, is_unknown
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Caller
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, StatusError
from kata_py.ttrpc.redial import redialling

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds: an adaptor may be starting anew right now
CREATE_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0  # upstream's adaptor deletes before it answers
RESTART_TIMEOUT = 120.0  # seconds that an adaptor may take to be started anew; a start goes on afterwards

_DEAD_ADAPTOR = "does cloud-api-adaptor run on this node? remote_hypervisor_socket says where it listens"


class RemoteVm:
    """A machine elsewhere; satisfies `kata_py.hypervisor.api.Vm`."""

    def __init__(self, agent: UnixAddress) -> None:
        self.agent = agent
        self._exit: asyncio.Future[VmExit] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        """The shim's own: no process of this host is the machine."""
        return os.getpid()

    def console_tail(self) -> tuple[str, ...]:
        """Nothing: the console is the cloud's."""
        return ()

    async def wait(self) -> VmExit:
        """Wait until it is stopped by us; that it has ended by itself, the agent's connection says."""
        return await asyncio.shield(self._exit)

    async def attach(self, device: Device) -> GuestDevice:
        """As `Vm.attach`: never possible."""
        raise HypervisorError("attach", f"a machine elsewhere cannot have a {type(device).__name__} of this host")

    async def detach(self, device: GuestDevice) -> None:
        """As `Vm.detach`: nothing ever was."""
        raise HypervisorError("detach", f"{device.id} was not plugged in")

    def stopped(self) -> None:
        """We have stopped it."""
        if not self._exit.done():
            self._exit.set_result(VmExit("the machine was stopped", expected=True))


class RemoteHypervisor:
    """The driver; satisfies `kata_py.hypervisor.api.Hypervisor`.

    Args:
        configuration: Says where the adaptor listens, and how long it may take.
    """

    name = "remote"

    def __init__(self, configuration: Configuration) -> None:
        hypervisor = configuration.hypervisor
        self._socket: Path = hypervisor.remote_hypervisor_socket
        self._timeout = hypervisor.remote_hypervisor_timeout

    @asynccontextmanager
    async def launch(self, spec: VmSpec, journal: Journal) -> AsyncIterator[RemoteVm]:
        """As `Hypervisor.launch`; entering returns when the machine's agent can be reached."""
        async with AsyncExitStack() as stack:
            vm = await self._start(spec, journal, stack)
            stack.callback(vm.stopped)
            yield vm

    async def _start(self, spec: VmSpec, journal: Journal, stack: AsyncExitStack) -> RemoteVm:
        request = hypervisor_pb2.CreateVMRequest(
            id=spec.sandbox_id,
            annotations=spec.annotations,
            networkNamespacePath=str(spec.network_namespace or ""),
        )
        async with self._adaptor() as adaptor:
            await stack.enter_async_context(self._stopped(spec.sandbox_id, journal))
            with journal.span("adaptor"):
                created = await adaptor.CreateVM(request, timeout=CREATE_TIMEOUT)
            with journal.span("instance"):
                await adaptor.StartVM(hypervisor_pb2.StartVMRequest(id=spec.sandbox_id), timeout=self._timeout)
        return RemoteVm(UnixAddress(created.agentSocketPath))

    @asynccontextmanager
    async def _stopped(self, sandbox_id: str, journal: Journal) -> AsyncIterator[None]:
        """A context in which the adaptor has a machine for the sandbox; what it does not agree to stays on record."""
        undo = StopPeer(str(self._socket), sandbox_id)
        try:
            journal.intend(undo)
        except OSError as error:
            raise HypervisorError("adaptor", f"the record cannot be written: {error}") from error
        try:
            yield
        finally:
            if await self._stop(sandbox_id):
                journal.settled(undo)

    async def _stop(self, sandbox_id: str) -> bool:
        """Have it deleted; returns whether the adaptor has agreed to."""
        try:
            async with self._adaptor() as adaptor:
                await adaptor.StopVM(hypervisor_pb2.StopVMRequest(id=sandbox_id), timeout=STOP_TIMEOUT)
        except HypervisorError as error:
            if isinstance(error.__cause__, StatusError) and is_unknown(error.__cause__.code, error.__cause__.message):
                return True
            logger.error("sandbox %s: its machine stays on record: %s", sandbox_id, error)
            return False
        return True

    @asynccontextmanager
    async def _adaptor(self) -> AsyncIterator[HypervisorClient]:
        """The adaptor, over a connection of its own: one that is held for a pod's life would outlive the adaptor."""
        try:
            async with redialling(
                UnixAddress(str(self._socket)),
                _probe,
                timeout=CONNECT_TIMEOUT,
                patience=RESTART_TIMEOUT,
                repeatable=("StartVM", "StopVM"),
            ) as client:
                yield HypervisorClient(client)
        except ConnectError as error:
            raise HypervisorError("adaptor", str(error), hint=_DEAD_ADAPTOR) from error
        except ConnectionClosed as error:
            raise HypervisorError("adaptor", f"the adaptor has gone: {error}", hint=_DEAD_ADAPTOR) from error
        except StatusError as error:
            raise HypervisorError("adaptor", error.message) from error


async def _probe(client: Caller) -> None:
    await HypervisorClient(client).Version(hypervisor_pb2.VersionRequest())
