"""A sandbox: record, shared directory, virtual machine, agent, container, in this order and back.

Starting is a transaction: a failure, or a cancellation, undoes what was made, newest first, to its end. A
machine that dies ends all processes with status 255; the manager learns it as it learns any exit, and the shim
stays to answer.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from kata_py.hypervisor.api import Hypervisor, Vm
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.container import Container
from kata_py.sandbox.dial import dial
from kata_py.sandbox.errors import AlreadyExists, DeadlineExceeded, NotFound, SandboxError
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.plan import ContainerPlan, SandboxPlan
from kata_py.sandbox.process import Exit, OpenStdio
from kata_py.sandbox.record import Record, Shim, State
from kata_py.sandbox.stage import Stages, last_words
from kata_py.storage.share import off_loop, open_share

logger = logging.getLogger(__name__)

END_TIMEOUT = 2.0  # seconds that killed containers may take to be seen ending
LOST_TIMEOUT = 0.5  # seconds that a lost process's outputs may be taken before its end is told
CLOSE_TIMEOUT = 10.0  # seconds that a sandbox's end waits for its processes' streams


class Sandbox:
    """One sandbox that runs; made by `start`. It ends with the container it was started with."""

    def __init__(self, record: Record, vm: Vm, agent: Agent, first: Container, teardown: AsyncExitStack) -> None:
        self.id = record.id
        self._first = first
        self._containers = {first.id: first}
        self._record = record
        self._vm = vm
        self._agent = agent
        self._teardown = teardown
        self._stopping: asyncio.Task[None] | None = None
        self._watcher = asyncio.create_task(self._watch(), name=f"watch of sandbox {self.id}")

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

        Raises:
            AlreadyExists: A live shim serves a sandbox of this id.
            StageFailed: A stage failed; nothing is left behind.
        """
        async with _transaction() as stack:
            on_record = _on_record(plan.id, namespace, first.bundle, plan.paths.records)
            record = await stack.enter_async_context(on_record)
            stages = Stages(record)
            with record.span("request", began=planned[0]):
                record.stage("plan", *planned)
                async with stages.stage("share"):
                    share = await stack.enter_async_context(open_share(plan.id, record, plan.paths.shares))
                async with stages.stage("machine"):
                    vm = stages.vm = await stack.enter_async_context(hypervisor.launch(plan.vm, record))
                async with stages.stage("agent", plan.dial_timeout):
                    agent = await stack.enter_async_context(dial(vm, plan.dial_timeout))
                async with stages.stage("sandbox"):
                    await _prepare(agent, plan)
                async with stages.stage("create", plan.create_timeout):
                    await stack.enter_async_context(share.container(first.id, first.rootfs, first.volumes))
                    await agent.create_container(first.guest, plan.create_timeout)
            record.move(State.RUNNING)
            container = Container(first, agent, open_stdio, events, record, pid=vm.pid)
            return cls(record, vm, agent, container, stack.pop_all())

    def container(self, id: str) -> Container:
        """The container of that id.

        Raises:
            NotFound: There is none.
        """
        try:
            return self._containers[id]
        except KeyError:
            raise NotFound(f"no task {id!r}") from None

    async def kill(self, container: Container, exec_id: str, signal: int) -> None:
        """Signal a process. A SIGKILL for a whole container that the agent does not answer ends the machine."""
        try:
            await container.kill(exec_id, signal)
        except DeadlineExceeded:
            if exec_id or signal != signals.SIGKILL:
                raise
            logger.error("sandbox %s: the agent does not answer SIGKILL, its machine is ended", self.id)
            await self._agent.close()

    async def delete(self, container: Container) -> Exit:
        """Forget a container, and end with the first; returns how the container ended."""
        if container is self._first:
            await self.stop()
        self.container(container.id)  # another caller may have been faster
        exit = container.delete()
        del self._containers[container.id]
        return exit

    async def stop(self) -> None:
        """End it, with all that runs in it; returns when nothing is left. Any number of callers, at any time."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"end of sandbox {self.id}")
        await asyncio.shield(self._stopping)

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
        if init.exit is None and self._stopping is None:
            cause, evidence = await last_words(self._vm, "the agent's connection is lost")
            logger.error("sandbox %s: %s; last lines: %s", self.id, cause, " | ".join(evidence))
        await self.stop()

    async def _stop(self) -> None:
        self._record.move(State.STOPPING)
        if not self._agent.gone:
            await self._first.end(END_TIMEOUT)
            try:
                await self._agent.destroy_sandbox()
            except SandboxError as error:
                logger.warning("sandbox %s: the guest does not end by itself: %s", self.id, error)
            await self._agent.close()
        for container in list(self._containers.values()):
            await container.lost(LOST_TIMEOUT)
        try:
            await self._teardown.aclose()
        except Exception:
            logger.exception("sandbox %s: its end failed in part", self.id)
        for container in list(self._containers.values()):
            await container.closed(CLOSE_TIMEOUT)


@asynccontextmanager
async def _transaction() -> AsyncIterator[AsyncExitStack]:
    """A stack that a failure undoes to its end: whoever is cancelled meanwhile goes on waiting."""
    stack = AsyncExitStack()
    try:
        yield stack
    except BaseException:
        undoing = asyncio.create_task(stack.aclose(), name="undoing")
        while not undoing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([undoing])
        undoing.result()
        raise


@asynccontextmanager
async def _on_record(id: str, namespace: str, bundle: Path, root: Path) -> AsyncIterator[Record]:
    """Begin a sandbox's record; leaving undoes all that is still on it.

    What a shim that died has left of a sandbox of this id is undone first.
    """
    try:
        record = Record.create(id, namespace=namespace, bundle=bundle, root=root)
    except AlreadyExists:
        stale = Record.load(id, root=root)
        if stale.shim.alive and stale.shim != Shim.current():
            raise
        left = await off_loop(stale.unwind)
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


async def _prepare(agent: Agent, plan: SandboxPlan) -> None:
    for prepare in (agent.set_clock, agent.seed):
        try:
            await prepare()
        except SandboxError as error:  # an old agent, or one that may not: the guest has clock and seed of its own
            logger.warning("sandbox %s: %s", plan.id, error)
    await agent.create_sandbox(plan.guest)
