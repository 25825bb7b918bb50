"""A sandbox: record, shared directory, virtual machine, agent, containers, in this order and back.

Starting it, or a further container in it, is a transaction: a failure, or a cancellation, undoes what was made,
newest first, to its end. A machine that dies ends all processes with status 255; the manager learns it as it
learns any exit, and the shim stays to answer.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from kata_py.hypervisor.api import Hypervisor, OffersPorts, VmSpec
from kata_py.network.network import Network, open_network
from kata_py.oci.spec import LinuxResources
from kata_py.oci.wire import resources_to_agent
from kata_py.resource.journal import Journal
from kata_py.resource.mntns import MountNamespace
from kata_py.sandbox import agent_log, boots, failure, oom, trace
from kata_py.sandbox.agent import CALL_TIMEOUT, Agent
from kata_py.sandbox.container import Container
from kata_py.sandbox.container_plan import ContainerPlan, guest_resources
from kata_py.sandbox.dial import dial
from kata_py.sandbox.disks import Disks
from kata_py.sandbox.errors import (
    TOLD_LINES,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    SandboxError,
    StageFailed,
)
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.links import Links
from kata_py.sandbox.parts import Parts
from kata_py.sandbox.placement import placed
from kata_py.sandbox.process import Exit, OpenStdio, Status
from kata_py.sandbox.record import Leftover, Record, Shim, State
from kata_py.sandbox.resize import Resizing
from kata_py.sandbox.sandbox_plan import SandboxPlan
from kata_py.sandbox.stage import Stages, last_words
from kata_py.sandbox.timeline import Span
from kata_py.sandbox.trace import Work
from kata_py.sandbox.transaction import transaction
from kata_py.storage.copies import Copies
from kata_py.storage.share import Share, off_loop, open_share

logger = logging.getLogger(__name__)

END_TIMEOUT = 2.0  # seconds that killed containers may take to be seen ending
LOST_TIMEOUT = 0.5  # seconds that a lost process's outputs may be taken before its end is told
ABANDON_TIMEOUT = 5.0  # seconds that a creation in the guest may go on after its caller has given it up
CLOSE_TIMEOUT = 10.0  # seconds that a sandbox's end waits for its processes' streams


Serve = Callable[[Parts], AbstractAsyncContextManager[None]]


class Sandbox:
    """One sandbox that runs; made by `start`. It ends with the container it was started with.

    Args:
        parts: What it is made of.
        first: That container.
        links: Its network's; None without a network.
        teardown: Ends all of it.
    """

    def __init__(self, parts: Parts, first: Container, links: Links | None, teardown: AsyncExitStack) -> None:
        self.id = parts.record.id
        self._first = first
        self._containers = {first.id: first}
        self._parts = parts
        self._record = parts.record
        self._vm = parts.vm
        self._agent = parts.agent
        self._teardown = teardown
        self._stopping: asyncio.Task[None] | None = None
        self._watcher = asyncio.create_task(self._watch(), name=f"watch of sandbox {self.id}")
        watches = [asyncio.create_task(oom.watch(self._agent, self._out_of_memory), name=f"oom of {self.id}")]
        if links is not None:
            watches.append(asyncio.create_task(links.follow(), name=f"links of {self.id}"))
        self._watches = watches

    @classmethod
    async def start(
        cls,
        plan: SandboxPlan,
        first: ContainerPlan,
        hypervisor: Hypervisor,
        open_stdio: OpenStdio,
        events: EventQueue,
        *,
        namespace: str,
        planned: tuple[int, int],
        node: MountNamespace | None = None,
        serve: Serve = lambda parts: nullcontext(),
    ) -> Sandbox:
        """Start a sandbox, up to the creation of its first container.

        Args:
            plan: What was decided for it.
            first: What was decided for its container.
            hypervisor: Makes its machine.
            open_stdio: Opens the manager's ends of streams.
            events: Where the manager is told.
            namespace: The manager's namespace.
            planned: When planning began and ended, in monotonic nanoseconds.
            node: Where is seen what the manager mounts; without it in the namespace of this process.
            serve: What is open as long as the sandbox runs, made of its parts.

        Raises:
            AlreadyExists: A live shim serves a sandbox of this id.
            StageFailed: A stage failed; nothing is left behind.
        """
        async with transaction() as stack:
            on_record = _on_record(plan.id, namespace, first.bundle, plan.paths.records)
            record = await stack.enter_async_context(on_record)
            stages = Stages(record)
            with _told(record), record.span("request", began=planned[0]):
                record.stage("plan", *planned)
                async with stages.stage("share"):
                    share: Share | Copies | None = None
                    if plan.shared:
                        shares = plan.paths.shares
                        share = await stack.enter_async_context(open_share(plan.id, record, shares, node=node))
                        await stack.enter_async_context(share.sandbox(plan.bind_mounts))
                    files: dict[str, AsyncExitStack] = {}
                    stack.push_async_callback(_close_all, files)
                async with stages.stage("network"):
                    network = await stack.enter_async_context(_networked(plan, record))
                async with stages.stage("cgroups"):
                    placement = await stack.enter_async_context(placed(plan.cgroups, record))
                    await placement.admit(first.host_devices)
                async with AsyncExitStack() as boot:
                    if not plan.vm.elsewhere:
                        async with stages.stage("queue", boots.TIMEOUT):
                            await boot.enter_async_context(boots.turn(plan.paths.boots, record, boots.places()))
                    async with stages.stage("machine"):
                        vm = stages.vm = await stack.enter_async_context(
                            hypervisor.launch(_with(plan.vm, network), record)
                        )
                    log = vm.ports.log if isinstance(vm, OffersPorts) else None
                    stages.log = await stack.enter_async_context(agent_log.following(log, plan.id))
                    if first.hooks:
                        async with stages.stage("hooks"):
                            await stack.enter_async_context(first.hooks.around(vm.pid, record))
                    async with stages.stage("agent", plan.dial_timeout):
                        agent = stages.agent = await stack.enter_async_context(
                            dial(vm, plan.dial_timeout, plan.patience)
                        )
                    stack.push_async_callback(trace.rescue, agent)
                if plan.policy:
                    async with stages.stage("policy", CALL_TIMEOUT):
                        await agent.set_policy(plan.policy)
                async with stages.stage("sandbox", plan.guest_timeout):
                    links = None if network is None else Links(network, vm, agent)
                    await _prepare(agent, plan, links)
                    if share is None:
                        share = Copies(agent.copy_file)
                        await stack.enter_async_context(share.sandbox(plan.bind_mounts))
                resizing = Resizing(vm, agent, plan.sizing, partial(placement.settle, vm))
                stack.push_async_callback(resizing.aclose)
                parts = Parts(
                    record,
                    stages,
                    share,
                    files,
                    Disks(vm, plan.id, record),
                    vm,
                    agent,
                    open_stdio,
                    events,
                    plan.create_timeout,
                    resizing,
                    placement,
                    plan.paths.failures,
                )
                container = await parts.create(first)
            await stack.enter_async_context(serve(parts))
            record.move(State.RUNNING)
            return cls(parts, container, links, stack.pop_all())

    @property
    def timeline(self) -> tuple[Span, ...]:
        """Its stages so far."""
        return self._record.timeline

    async def take_spans(self, work: Work, timeout: float) -> None:
        """Add to a traced piece of work what the guest tells of it, within some seconds."""
        await work.take(self._agent, timeout)

    @property
    def vacant(self) -> bool:
        """Whether no container is left of which the manager could ask."""
        return not self._containers

    async def add(self, plan: ContainerPlan) -> Container:
        """Create a further container.

        Raises:
            AlreadyExists: There is one of this id.
            FailedPrecondition: The sandbox ends, or has ended.
            StageFailed: It could not be created; nothing of it is left behind.
        """
        if plan.id in self._containers:
            raise AlreadyExists(f"task {plan.id} exists already")
        self._require_running(plan.id)
        hooks = plan.hooks.around(self._vm.pid, self._record) if plan.hooks else None
        container = await self._parts.create(plan, patience=ABANDON_TIMEOUT, hooks=hooks)
        try:
            self._require_running(plan.id)
        except FailedPrecondition:
            await self._parts.remove(plan.id)
            raise
        self._containers[plan.id] = container
        return container

    def has(self, id: str) -> bool:
        """Whether there is a container of that id."""
        return id in self._containers

    def container(self, id: str) -> Container:
        """The container of that id.

        Raises:
            NotFound: There is none.
        """
        try:
            return self._containers[id]
        except KeyError:
            raise NotFound(f"no task {id!r}") from None

    async def start_process(self, container: Container, exec_id: str = "") -> None:
        """Start a container's process, or an exec; that a container does not start is kept for `kata-ctl explain`.

        Raises:
            SandboxError: As `Container.start`.
        """
        began = time.monotonic()
        first = not exec_id and container.process().status is Status.CREATED
        try:
            await container.start(exec_id)
        except SandboxError as error:
            if first:  # else the manager has asked for what cannot be
                failed = await self._parts.stages.failed(container.stage, error, began, CALL_TIMEOUT)
                failed.__cause__, failed.timeline = error, self._record.timeline
                kept = failure.of_container(
                    "start", self.id, container.id, self._record.namespace, str(container.bundle), failed
                )  # fmt: skip
                await off_loop(failure.keep, kept, self._parts.failures)
            raise

    async def kill(self, container: Container, exec_id: str, signal: int) -> None:
        """Signal a process. A SIGKILL for a whole container that the agent does not answer ends the machine."""
        try:
            await container.kill(exec_id, signal)
        except DeadlineExceeded:
            if exec_id or signal != signals.SIGKILL:
                raise
            logger.error("sandbox %s: the agent does not answer SIGKILL, its machine is ended", self.id)
            await self._agent.close()

    async def update(self, container: Container, resources: LinuxResources) -> None:
        """Give a container other limits; the machine grows before, and shrinks after.

        Raises:
            ResizeFailed: The machine cannot become large enough; nothing has changed.
        """
        async with self._parts.resizing.updating(container.id, resources):
            await container.update(resources_to_agent(guest_resources(resources)))

    async def delete(self, container: Container) -> Exit:
        """Forget a container, and end with the first; one that runs is killed. Returns how the container ended."""
        if container is self._first or self._stopping is not None:
            await self.stop()
        else:
            await container.end(END_TIMEOUT)
            await container.closed(CLOSE_TIMEOUT)
            await self._parts.remove(container.id)
        self.container(container.id)  # another caller may have been faster
        exit = container.delete()
        del self._containers[container.id]
        return exit

    async def stop(self) -> None:
        """End it, with all that runs in it; returns when nothing is left. Any number of callers, at any time."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"end of sandbox {self.id}")
        await asyncio.shield(self._stopping)

    def _require_running(self, container_id: str) -> None:
        if self._stopping is not None:
            raise FailedPrecondition(f"sandbox {self.id} has ended, it cannot run {container_id}")

    async def _out_of_memory(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is not None:  # else it is deleted, and nobody asks any more
            logger.warning("container %s: the kernel killed in it for want of memory", container_id)
            container.out_of_memory()
            cause = f"the guest's kernel killed in container {container_id} for want of memory"
            died = failure.of_death(self._record, cause, (), container_id)
            await off_loop(failure.keep, died, self._parts.failures)

    async def _watch(self) -> None:
        """Wait for the end of agent or first container, whichever comes first, and end the rest."""
        init = self._first.process()
        ends = [asyncio.ensure_future(wait) for wait in (self._agent.wait_gone(), init.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
        await self.stop()

    async def _keep_death(self) -> None:
        """Write down why a pod that nobody ended is dead. First of all in its end: the machine's own end is known by
        then, whoever was the first to hear of the lost agent, and no undoing passes for it."""
        cause, evidence = await last_words(self._vm, "the agent's connection is lost")
        logger.error("sandbox %s: %s; last lines: %s", self.id, cause, " | ".join(evidence[-TOLD_LINES:]))
        died = failure.of_death(self._record, cause, (*evidence, *self._parts.stages.log))
        await off_loop(failure.keep, died, self._parts.failures)

    async def _stop(self) -> None:
        self._record.move(State.STOPPING)
        if not self._agent.gone:
            await asyncio.gather(*(container.end(END_TIMEOUT) for container in self._containers.values()))
            try:
                await self._agent.destroy_sandbox()
            except SandboxError as error:
                logger.warning("sandbox %s: the guest does not end by itself: %s", self.id, error)
            await self._agent.close()
        elif self._first.process().exit is None:
            await self._keep_death()
        for container in list(self._containers.values()):
            await container.lost(LOST_TIMEOUT)
        for watch in self._watches:
            watch.cancel()
        await asyncio.wait(self._watches)
        try:
            await self._teardown.aclose()
        except Exception:
            logger.exception("sandbox %s: its end failed in part", self.id)
        for container in list(self._containers.values()):
            await container.closed(CLOSE_TIMEOUT)


@asynccontextmanager
async def _on_record(id: str, namespace: str, bundle: Path, root: Path) -> AsyncIterator[Record]:
    """Begin a sandbox's record; leaving undoes all that is still on it.

    What a shim that died has left of a sandbox of this id is undone first.
    """
    try:
        record = Record.create(id, namespace=namespace, bundle=bundle, root=root)
    except AlreadyExists:
        left = await off_loop(_unwind_stale, id, root)
        if left:
            text = "; ".join(map(str, left))
            raise SandboxError(f"an earlier sandbox {id} cannot be removed: {text}") from None
        record = Record.create(id, namespace=namespace, bundle=bundle, root=root)
    try:
        yield record
    finally:
        left = await off_loop(record.unwind)
        for leftover in left:
            logger.error("sandbox %s: left behind: %s", id, leftover)
        if left:
            record.move(State.STOPPED)


@contextmanager
def _told(record: Record) -> Iterator[None]:
    """Keep how far a start that fails has come, before its record is undone."""
    try:
        yield
    except BaseException as error:
        trace.keep(record.timeline)
        if isinstance(error, StageFailed):
            error.timeline = record.timeline
        raise


def _unwind_stale(id: str, root: Path) -> list[Leftover]:
    """Undo what is on record of a sandbox whose shim is gone.

    Raises:
        AlreadyExists: It is not.
        FailedPrecondition: As `Record.claimed`.
    """
    try:
        with Record.claimed(id, root=root) as stale:
            if stale.shim.alive and stale.shim != Shim.current():
                raise AlreadyExists(f"sandbox {id} is already on record in {stale.directory}")
            return stale.unwind()
    except NotFound:
        return []  # it has just been removed


async def _close_all(files: dict[str, AsyncExitStack]) -> None:
    async with AsyncExitStack() as stack:
        for each in files.values():
            stack.push_async_exit(each)
        files.clear()


def _networked(plan: SandboxPlan, journal: Journal) -> AbstractAsyncContextManager[Network | None]:
    if plan.network is None:
        return nullcontext()
    network = plan.network
    return open_network(
        network.namespace,
        network.model,
        journal,
        queues=plan.vm.cpus.count,
        vhost=network.vhost,
        limits=network.limits,
    )


def _with(vm: VmSpec, network: Network | None) -> VmSpec:
    """The machine with an interface for each of the network's links."""
    return vm if network is None else replace(vm, devices=(*vm.devices, *network.nics))


async def _prepare(agent: Agent, plan: SandboxPlan, links: Links | None) -> None:
    for prepare in (agent.set_clock, agent.seed):
        try:
            await prepare()
        except DeadlineExceeded:  # who does not answer this will not answer what follows, which waits as long
            raise
        except SandboxError as error:  # an old agent, or one that may not: the guest has clock and seed of its own
            logger.warning("sandbox %s: %s", plan.id, error)
    if links is not None:
        await links.tell()
    if plan.seccomp:
        await agent.require_seccomp()
    await agent.create_sandbox(plan.guest, plan.guest_timeout)
