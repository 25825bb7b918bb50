"""A sandbox: record, shared directory, virtual machine, agent, container, in this order and back.

Starting is a transaction: a failure, or a cancellation, undoes what was made, newest first, to its end. A
machine that dies ends all processes with status 255; the manager learns it as it learns any exit, and the shim
stays to answer.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from kata_py.hypervisor.api import Hypervisor, HypervisorError, Vm
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.container import Container
from kata_py.sandbox.errors import AlreadyExists, DeadlineExceeded, SandboxError, StageFailed, Unavailable
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.plan import ContainerPlan, SandboxPlan
from kata_py.sandbox.process import Exit
from kata_py.sandbox.record import Record, Shim, State
from kata_py.sandbox.stdio import StdioOpener, StdioSpec
from kata_py.storage.share import off_loop, open_share
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectError

logger = logging.getLogger(__name__)

DIAL_INTERVAL = 0.05  # seconds between attempts: nothing tells when a guest begins to listen
DEATH_TIMEOUT = 1.0  # seconds that a lost connection waits to learn of its machine's end
END_TIMEOUT = 2.0  # seconds that killed containers may take to be seen ending
SETTLE_TIMEOUT = 10.0  # seconds that a sandbox's end waits for its processes' streams
EVIDENCE_LINES = 10

_T = TypeVar("_T")


class Sandbox:
    """One sandbox.

    Args:
        plan: What was decided for it.
        hypervisor: Makes its machine.
        opener: Opens the manager's ends of streams.
        events: Where the manager is told.
        namespace: The manager's namespace.
        bundle: The bundle of its first container.
        paths: Where its files go.
    """

    def __init__(
        self,
        plan: SandboxPlan,
        hypervisor: Hypervisor,
        opener: StdioOpener,
        events: EventQueue,
        *,
        namespace: str,
        bundle: Path,
        paths: HostPaths,
    ) -> None:
        self.id = plan.id
        self._plan = plan
        self._hypervisor = hypervisor
        self._opener = opener
        self._events = events
        self._namespace = namespace
        self._bundle = bundle
        self._paths = paths
        self._record: Record | None = None
        self._vm: Vm | None = None
        self._agent: Agent | None = None
        self._containers: dict[str, Container] = {}
        self._teardown = AsyncExitStack()
        self._watcher: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, plan: ContainerPlan, stdio: StdioSpec, *, planned: tuple[int, int]) -> Container:
        """Start it, up to the creation of its first container.

        Args:
            plan: What was decided for the container.
            stdio: Where its process's streams go.
            planned: When planning began and ended, in monotonic nanoseconds.

        Raises:
            AlreadyExists: A live shim serves a sandbox of this id.
            StageFailed: A stage failed; nothing is left behind.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._unwind)
            record = await off_loop(self._open_record)
            with record.span("request", began=planned[0]):
                record.stage("plan", *planned)
                async with self._stage("share"):
                    share = await stack.enter_async_context(open_share(self.id, record, self._paths.shares))
                async with self._stage("machine"):
                    vm = self._vm = await stack.enter_async_context(self._hypervisor.launch(self._plan.vm, record))
                async with self._stage("agent", self._plan.dial_timeout):
                    agent = self._agent = await self._unless_machine_ends(self._dial(vm, stack))
                async with self._stage("sandbox"):
                    await self._prepare_guest(agent)
                async with self._stage("create", self._plan.create_timeout):
                    await stack.enter_async_context(share.container(plan.id, plan.rootfs, plan.volumes))
                    await agent.create_container(plan.guest, self._plan.create_timeout)
            self._teardown = stack.pop_all()
        container = Container(
            plan, agent, self._opener, self._events, record,
            pid=vm.pid, namespace=self._namespace, bundle=self._bundle, stdio=stdio,
        )  # fmt: skip
        self._containers[plan.id] = container
        self._watcher = asyncio.create_task(self._watch(vm, agent, container), name=f"watch of sandbox {self.id}")
        record.move(State.RUNNING)
        return container

    async def kill(self, container: Container, exec_id: str, signal: int) -> None:
        """Signal a process. A SIGKILL for a whole container that the agent does not answer ends the machine."""
        try:
            await container.kill(exec_id, signal)
        except DeadlineExceeded:
            if exec_id or signal != signals.SIGKILL or self._agent is None:
                raise
            logger.error("sandbox %s: the agent does not answer SIGKILL, its machine is ended", self.id)
            await self._agent.close()

    async def delete(self, container: Container) -> Exit:
        """Forget a container; the sandbox ends with its first one."""
        if container.id == self.id:
            await self.stop()
        self._containers.pop(container.id, None)
        return container.delete()

    async def stop(self) -> None:
        """End it, with all that runs in it; returns when nothing is left. Any number of callers, at any time."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"end of sandbox {self.id}")
        await asyncio.shield(self._stopping)

    def _open_record(self) -> Record:
        """Begin the record; what a shim that died has left of a sandbox of this id is undone first."""
        create = partial(Record.create, self.id, namespace=self._namespace, bundle=self._bundle)
        root = self._paths.records
        try:
            self._record = create(root=root)
        except AlreadyExists:
            stale = Record.load(self.id, root=root)
            if stale.shim.alive and stale.shim != Shim.current():
                raise
            left = stale.unwind()
            if left:
                text = "; ".join(map(str, left))
                raise SandboxError(f"an earlier sandbox {self.id} cannot be removed: {text}") from None
            self._record = create(root=root)
        return self._record

    async def _unwind(self) -> None:
        if self._record is None:
            return
        left = await off_loop(self._record.unwind)
        for leftover in left:
            logger.error("sandbox %s: left behind: %s", self.id, leftover)
        if left:
            self._record.move(State.STOPPED)

    async def _dial(self, vm: Vm, stack: AsyncExitStack) -> Agent:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._plan.dial_timeout
        while True:
            remaining = max(deadline - loop.time(), 0.001)
            try:
                async with AsyncExitStack() as attempt:
                    agent = Agent(await attempt.enter_async_context(connect(vm.agent, timeout=remaining)))
                    await agent.check(remaining)
                    await stack.enter_async_context(attempt.pop_all())
                    return agent
            except (ConnectError, Unavailable, DeadlineExceeded) as error:
                if loop.time() + DIAL_INTERVAL > deadline:
                    raise DeadlineExceeded(f"no answer from {vm.agent}: {error}") from error
            await asyncio.sleep(DIAL_INTERVAL)

    async def _prepare_guest(self, agent: Agent) -> None:
        for prepare in (agent.set_clock, agent.seed):
            try:
                await prepare()
            except SandboxError as error:  # an old agent, or one that may not: the guest has clock and seed of its own
                logger.warning("sandbox %s: %s", self.id, error)
        await agent.create_sandbox(self._plan.guest)

    async def _watch(self, vm: Vm, agent: Agent, first: Container) -> None:
        """Wait for the end of machine, agent or first container, whichever comes first, and end the rest."""
        ends = [asyncio.ensure_future(wait) for wait in (vm.wait(), agent.wait_gone(), first.ended.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
        if not first.ended.is_set() and self._stopping is None:
            cause, evidence = await self._cause_of_death("the agent's connection is lost")
            logger.error("sandbox %s: %s; last lines: %s", self.id, cause, " | ".join(evidence))
            await agent.close()
        await self.stop()

    async def _stop(self) -> None:
        if self._record is not None:
            self._record.move(State.STOPPING)
        if self._agent is not None:
            if not self._agent.gone:
                for container in self._containers.values():
                    await container.end(END_TIMEOUT)
                try:
                    await self._agent.destroy_sandbox()
                except SandboxError as error:
                    logger.warning("sandbox %s: the guest does not end by itself: %s", self.id, error)
            await self._agent.close()
        for container in self._containers.values():
            container.lost()
        try:
            await self._teardown.aclose()
        except Exception:
            logger.exception("sandbox %s: its end failed in part; what is left is on record", self.id)
        for container in list(self._containers.values()):
            await container.settled(SETTLE_TIMEOUT)

    async def _unless_machine_ends(self, work: Coroutine[object, object, _T]) -> _T:
        """Do the work; the machine's end ends it with `Unavailable`."""
        assert self._vm is not None
        working = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._vm.wait())
        try:
            await asyncio.wait([working, ended], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Unavailable("the machine has ended")
            return working.result()
        finally:
            working.cancel()
            ended.cancel()
            await asyncio.wait([working, ended])

    @asynccontextmanager
    async def _stage(self, name: str, budget: float | None = None) -> AsyncIterator[None]:
        """Time a stage and give its failure a name, with what was seen last of the machine."""
        assert self._record is not None
        began = time.monotonic()
        try:
            with self._record.span(name):
                yield
        except Exception as error:
            elapsed = time.monotonic() - began
            if isinstance(error, HypervisorError):
                cause = f"{error.cause} ({error.hint})" if error.hint else error.cause
                failed = StageFailed(error.stage, cause, elapsed=elapsed, budget=budget, evidence=error.evidence)
            else:
                cause, evidence = str(error), self._evidence()
                if isinstance(error, Unavailable):
                    cause, evidence = await self._cause_of_death(cause)
                failed = StageFailed(name, cause, elapsed=elapsed, budget=budget, evidence=evidence)
            raise failed from error

    def _evidence(self) -> tuple[str, ...]:
        return self._vm.console_tail()[-EVIDENCE_LINES:] if self._vm is not None else ()

    async def _cause_of_death(self, cause: str) -> tuple[str, tuple[str, ...]]:
        """A lost connection's cause, which the machine's own end tells better, and the machine's last lines."""
        if self._vm is not None:
            try:
                async with asyncio.timeout(DEATH_TIMEOUT):
                    end = await self._vm.wait()
                    return end.cause, end.evidence[-EVIDENCE_LINES:] or self._evidence()
            except TimeoutError:
                pass  # the machine lives
        return cause, self._evidence()
