"""A pod's machine follows its containers: it grows before one is created, and shrinks after one is gone.

One thing is done at a time; whoever comes meanwhile finds the machine on its way to a size that has its wish in it.
Nothing else of a sandbox waits for this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from kata_py.hypervisor.api import HypervisorError, Resizable, Size, Vm
from kata_py.oci.spec import LinuxResources
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.size import MIB, Demand, Sizing, merged

logger = logging.getLogger(__name__)

BLOCK = 128  # MiB that a guest takes memory in, where its agent does not say
HINT = "raise memory_slots or set enable_virtio_mem; static_sandbox_resource_mgmt boots with the pod's whole size"

Stopped = Callable[[], bool]
Place = Callable[[Sequence[LinuxResources]], Awaitable[None]]


class ResizeFailed(SandboxError):
    """The machine has not become as large as its containers need."""


class Resizing:
    """The size of one sandbox's machine.

    Args:
        vm: The machine; one that cannot grow stays as it is.
        agent: The agent in it.
        sizing: How it is measured.
        place: Called with what the containers may use, after each change of that: the host's side of it.
    """

    def __init__(self, vm: Vm, agent: Agent, sizing: Sizing, place: Place) -> None:
        self._vm = vm if isinstance(vm, Resizable) and not sizing.fixed else None
        self._agent = agent
        self._sizing = sizing
        self._place = place
        self._changed = False
        self._closed = False
        self._containers: dict[str, tuple[LinuxResources, Stopped]] = {}
        self._block = 0
        self._work: asyncio.Task[None] | None = None
        self._told = ""

    async def add(self, container_id: str, resources: LinuxResources) -> None:
        """Make room for a container that is about to be created; it counts until `remove`.

        Raises:
            ResizeFailed: The machine cannot become large enough; the container does not count.
        """
        self._containers[container_id] = resources, lambda: False
        try:
            await self._grow()
        except BaseException:
            self.remove(container_id)
            raise

    def follow(self, container_id: str, stopped: Stopped) -> None:
        """From now on a container counts only while it is not stopped."""
        resources, _ = self._containers[container_id]
        self._containers[container_id] = resources, stopped

    @asynccontextmanager
    async def updating(self, container_id: str, resources: LinuxResources) -> AsyncIterator[None]:
        """Make room for what a container may use from now on, while the agent is told; failing takes it back.

        Args:
            container_id: The container.
            resources: What becomes different.

        Raises:
            ResizeFailed: The machine cannot become large enough.
        """
        old, stopped = self._containers[container_id]
        self._containers[container_id] = merged(old, resources), stopped
        try:
            await self._grow()
            yield
        except BaseException:
            if container_id in self._containers:
                self._containers[container_id] = old, stopped
            raise
        finally:
            self.settle()

    def remove(self, container_id: str) -> None:
        """A container does not count any more; the machine shrinks when it can."""
        if self._containers.pop(container_id, None) is not None:
            self.settle()

    def settle(self) -> None:
        """Let the machine come to its size, and to its place on the host, in the background."""
        self._changed = True
        if self._work is None and not self._closed:
            self._work = asyncio.create_task(self._follow_demand(), name="resizing")
            self._work.add_done_callback(self._done)

    async def aclose(self) -> None:
        """End what goes on; the machine is about to go."""
        self._closed = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    def _counted(self) -> list[LinuxResources]:
        return [resources for resources, stopped in self._containers.values() if not stopped()]

    def _demand(self) -> Demand:
        demand = self._sizing.demand(self._counted())
        if demand.refused and demand.refused != self._told:
            logger.warning("the pod wants %s", demand.refused)
        self._told = demand.refused
        return demand

    async def _grow(self) -> None:
        wanted = self._demand().size
        vm, failure = self._vm, None
        while vm is not None and not _covers(vm.size, wanted) and failure is None and not self._closed:
            before, ours = vm.size, self._work is None
            self.settle()
            assert self._work is not None
            work = self._work
            await asyncio.wait([work])
            if ours:  # what went on before may have failed for reasons of its own
                failure = None if work.cancelled() else _failure(work)
                if vm.size == before:
                    break
        if vm is None or (_covers(vm.size, wanted) and failure is None):
            self.settle()
            return
        why = failure or ("the sandbox ends" if self._closed else f"the machine takes no more ({HINT})")
        reached = f"the machine has {_text(vm.size)} of {_text(wanted)} that its containers need"
        raise ResizeFailed(f"{reached}: {why}") from failure

    async def _follow_demand(self) -> None:
        while self._changed:
            self._changed = False
            try:
                if self._vm is not None:
                    await self._resize(self._vm)
            finally:
                await self._place(self._counted())

    async def _resize(self, vm: Resizable) -> None:
        """Step by step to the size that is wanted, which may change meanwhile, until no step brings it nearer."""
        while (wanted := self._demand().size) != (before := vm.size):
            if not self._block:
                self._block = (await self._agent.memory_block()) // MIB or BLOCK
            after = await vm.resize(wanted, block=self._block)
            if after == before:
                if not _covers(after, wanted):
                    logger.warning("the machine stays at %s of %s", _text(after), _text(wanted))
                return
            logger.info("the machine has %s, from %s", _text(after), _text(before))
            if after.cpus > before.cpus or after.memory > before.memory:
                cpus = after.cpus if after.cpus > before.cpus else 0
                await self._agent.online(cpus, memory=after.memory > before.memory)

    def _done(self, work: asyncio.Task[None]) -> None:
        self._work = None
        if not work.cancelled() and (failure := _failure(work)) is not None:
            logger.warning("the machine's size cannot be changed: %s", failure)


def _failure(work: asyncio.Task[None]) -> Exception | None:
    """What a resize failed with, if it is what can be expected to happen."""
    error = work.exception()
    if error is None or isinstance(error, HypervisorError | SandboxError):
        return error
    raise error


def _covers(size: Size, wanted: Size) -> bool:
    return size.cpus >= wanted.cpus and size.memory >= wanted.memory


def _text(size: Size) -> str:
    return f"{size.cpus} vCPUs and {size.memory} MiB"
