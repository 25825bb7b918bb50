"""What a sandbox's containers are made with, and how: files, disks, devices, memory, and the guest's own part of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.hypervisor.api import GuestDevice, HypervisorError, Vm
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.container import Container
from kata_py.sandbox.container_plan import ContainerPlan
from kata_py.sandbox.disks import Disks
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.placement import Placement
from kata_py.sandbox.process import OpenStdio, Status
from kata_py.sandbox.record import Record
from kata_py.sandbox.resize import Resizing
from kata_py.sandbox.stage import Stages
from kata_py.sandbox.transaction import transaction
from kata_py.sandbox.vfio import Passthrough, with_devices
from kata_py.storage.copies import Copies
from kata_py.storage.share import Share

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a sandbox's containers are made with.

    Attributes:
        record: Its record.
        stages: Times what is made.
        share: Its directory that the guest sees, or the copies that stand in its place.
        files: What is in there, by container.
        disks: The disks of its machine.
        vm: Its machine.
        agent: The agent in it.
        open_stdio: Opens the manager's ends of streams.
        events: Where the manager is told.
        create_timeout: Seconds the agent may take to create a container.
        resizing: The machine's size.
        placement: Where its processes live on the host.
        failures: Where is kept how sandboxes failed.
    """

    record: Record
    stages: Stages
    share: Share | Copies
    files: dict[str, AsyncExitStack]
    disks: Disks
    vm: Vm
    agent: Agent
    open_stdio: OpenStdio
    events: EventQueue
    create_timeout: float
    resizing: Resizing
    placement: Placement
    failures: Path

    async def create(
        self,
        plan: ContainerPlan,
        *,
        patience: float = 0.0,
        hooks: AbstractAsyncContextManager[None] | None = None,
    ) -> Container:
        """Create a container, of which nothing is left behind if it fails.

        Args:
            plan: What was decided for it.
            patience: Seconds that a creation may go on in the guest after its caller has given it up, to be undone
                there; 0 where the machine goes with it.
            hooks: What runs before its creation and after its end.

        Raises:
            StageFailed: A hook fails, its files cannot be shown to the guest, or the agent cannot create it.
        """
        async with self.stages.stage(plan.stage("create"), self.create_timeout), transaction() as stack:
            files = await stack.enter_async_context(AsyncExitStack())
            await files.enter_async_context(hooks or nullcontext())
            await self.placement.admit(plan.host_devices)
            await files.enter_async_context(self.share.container(plan.id, plan.rootfs, plan.volumes))
            request = await files.enter_async_context(self.disks.given(plan.guest, plan.disks))
            given = [await files.enter_async_context(self._given(each)) for each in plan.vfio]
            request = with_devices(request, given)
            stack.callback(self.resizing.remove, plan.id)
            await self.resizing.add(plan.id, plan.resources)
            creating = asyncio.create_task(
                self.agent.create_container(request, self.create_timeout), name=f"creation of {plan.id} in the guest"
            )
            stack.push_async_callback(self._discard, plan.id, creating, patience)
            await asyncio.shield(creating)
            stack.pop_all()
            self.files[plan.id] = files
        container = Container(plan, self.agent, self.open_stdio, self.events, self.record, pid=self.vm.pid)
        self.resizing.follow(plan.id, lambda: container.process().status is Status.STOPPED)
        return container

    @asynccontextmanager
    async def _given(self, passthrough: Passthrough) -> AsyncIterator[agent_pb2.Device]:
        """Devices of the host in the machine, as the agent is told of them; afterwards they are taken out."""
        plugged: list[GuestDevice] = []
        try:
            for device in passthrough.devices:
                plugged.append(await self.vm.attach(device))
            yield passthrough.message(plugged)
        finally:
            for guest in reversed(plugged):
                try:
                    await self.vm.detach(guest)
                except HypervisorError as error:  # it goes with the machine
                    logger.warning("%s is not taken out: %s", guest.id, error)

    async def _discard(self, container_id: str, creating: asyncio.Task[None], patience: float) -> None:
        """Undo a creation in the guest, which goes on there though its caller has given it up."""
        if not creating.done():
            await asyncio.wait([creating], timeout=patience)
        if patience and creating.done() and not creating.cancelled() and creating.exception() is None:
            await self._forget(container_id)
        creating.cancel()
        await asyncio.wait([creating])

    async def _forget(self, container_id: str) -> None:
        try:
            await self.agent.remove_container(container_id)
        except SandboxError as error:
            logger.warning("container %s: the guest does not let go of it: %s", container_id, error)

    async def remove(self, container_id: str) -> None:
        """Remove a container from the guest, and then its files. What cannot be removed goes with the sandbox."""
        await self._forget(container_id)
        self.resizing.remove(container_id)
        files = self.files.pop(container_id, None)
        if files is not None:
            await files.aclose()
