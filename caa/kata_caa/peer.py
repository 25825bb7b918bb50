"""The life of one peer pod: announced, started, stopped, each step on record before the cloud is asked for it.

Starting goes on whoever asks for it, and stopping to its end: what the runtime waits for is a task that outlives the
call. So a pod survives a restart of the adaptor at any point, and a machine is deleted until the cloud confirms it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kata_caa.apf import PodNetwork
from kata_caa.deletion import insist
from kata_caa.errors import AdaptorError, Fault, ProviderError
from kata_caa.faults import CALLS, RetryPolicy, retrying
from kata_caa.pool.machine import Machine
from kata_caa.providers.api import Instance, InstanceRequest, InstanceSpec, Provider
from kata_caa.record import PodRecord, PodRecords, State
from kata_caa.turns import Turns
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)


class Stopped(AdaptorError):
    """The pod was stopped while it started."""


class Late(AdaptorError):
    """The pod does not run yet, though whoever asked for it waits no longer: says what it waits for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """That a pod could not be started, for its user.

    Attributes:
        namespace: The pod's.
        name: The pod's.
        message: What went wrong.
        particulars: What of that is another word at the next try: ids, names and addresses of this one's machine.
    """

    namespace: str
    name: str
    message: str
    particulars: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: PodRecord, error: Exception) -> Failure:
        """That of a pod on record."""
        particulars = (record.instance_name, record.sandbox_id, record.instance_id, *record.addresses)
        return cls(record.namespace, record.name, words(error), tuple(filter(None, particulars)))


def words(error: Exception) -> str:
    """What an error says; one that nobody expects, with its kind."""
    return str(error) if isinstance(error, AdaptorError) else f"{type(error).__name__}: {error}"


class Proxy(Protocol):
    """A pod's agent, as the runtime reaches it through us."""

    async def ready(self) -> None:
        """Wait until the agent has answered.

        Raises:
            AdaptorError: It does not, in time.
        """

    @property
    def met(self) -> str:
        """What that has met last, and for how long."""


class Tunnel(Protocol):
    """The pod's network, between its namespace on this node and its machine."""

    async def inspect(self, netns: Path) -> PodNetwork:
        """What the pod's machine must know of the network; tunnels get numbers that nobody here uses.

        Raises:
            AdaptorError: The namespace does not have what a pod's has.
        """

    async def set_up(self, record: PodRecord) -> None:
        """Connect the namespace to the machine.

        Raises:
            AdaptorError: It cannot be connected.
        """

    async def tear_down(self, record: PodRecord) -> None:
        """Remove whatever of it is there."""


class Observer(Protocol):
    """Who is told what becomes of pods: Kubernetes. None of it may fail, or take long."""

    async def created(self, record: PodRecord) -> None:
        """The cloud has made the machine."""

    async def failed(self, failure: Failure) -> None:
        """A pod could not be started; it may never have been on record."""

    async def deleted(self, record: PodRecord) -> None:
        """The cloud has confirmed that nothing is left."""


class WarmPool(Protocol):
    """Machines that run already, and wait for a pod."""

    def taken(self, spec: InstanceSpec, user_data: str) -> AbstractAsyncContextManager[Machine | None]:
        """A machine that was told of the pod; None if there is none. It is the pod's once the context has ended."""

    def refill(self) -> None:
        """What was taken may be replaced: no pod waits for it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What peer pods are made with.

    Attributes:
        provider: The cloud.
        tunnel: The node's side of the pods' network.
        proxy: Opens the proxy of a pod's agent.
        records: Where the pods are written down.
        turns: How many machines are asked for at a time.
        observer: Who is told.
        tags: What machines bear, but for those of the pod.
        pool: Where a machine may be had at once.
        calls: What is tried again of calls to the cloud.
    """

    provider: Provider
    tunnel: Tunnel
    proxy: Callable[[PodRecord], Awaitable[AbstractAsyncContextManager[Proxy]]]
    records: PodRecords
    turns: Turns
    observer: Observer
    tags: Callable[[PodRecord], tuple[tuple[str, str], ...]]
    pool: WarmPool
    calls: RetryPolicy = CALLS


class PeerPod:
    """One peer pod.

    Args:
        record: As it was last written.
        parts: What it is made with.
        gone: Called when nothing of it is left.
    """

    def __init__(self, record: PodRecord, parts: Parts, gone: Callable[[str], None]) -> None:
        self.record = record
        self._parts = parts
        self._gone = gone
        self._open = AsyncExitStack()
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stop_noted = asyncio.Event()
        self._stage: Callable[[], str] = lambda: "nothing was done for it yet"

    @property
    def stage(self) -> str:
        """What its start waits for now, in words for its user."""
        return self._stage()

    @property
    def started(self) -> bool:
        """Whether somebody has asked for its machine."""
        return self._starting is not None

    async def start(self, patience: float | None = None) -> None:
        """Have it run; any number of callers. One that gives up leaves the start alone.

        Args:
            patience: Seconds that the caller waits.

        Raises:
            Stopped: It is being stopped.
            Late: It does not run in time; its start goes on.
            AdaptorError: It cannot run; what was made of it is being deleted.
        """
        starting = self.begin()
        await asyncio.wait([starting], timeout=patience)
        if patience is not None and not starting.done():
            raise Late(f"the pod does not run after {patience:.0f} s: {self.stage}")
        await starting

    def begin(self) -> asyncio.Task[None]:
        """Begin to start it, or to reach it again after a restart of the adaptor."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name=f"start of {self.record.instance_name}")
            self._starting.add_done_callback(_seen)
        return self._starting

    def stop(self) -> asyncio.Task[None]:
        """Begin to delete all of it; the task ends when the cloud has confirmed."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name=f"end of {self.record.instance_name}")
        return self._stopping

    async def stop_on_record(self) -> None:
        """Begin to delete all of it; returns when that is on record, so that the next adaptor goes on with it."""
        self.stop()
        await self._stop_noted.wait()

    async def leave(self) -> None:
        """Let go of it as it is: the adaptor ends, the pod does not."""
        for task in (self._starting, self._stopping):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        await self._open.aclose()

    async def _start(self) -> None:
        try:
            if self._stopping is not None or self.record.state is State.STOPPING:
                raise Stopped(f"sandbox {self.record.sandbox_id} is being stopped")
            if self.record.state is not State.RUNNING:
                await self._obtain()
                self._at(f"runs as {self.record.instance_id}; this node's end of its tunnel is made")
                await self._parts.tunnel.set_up(self.record)
            proxy = await self._open.enter_async_context(await self._parts.proxy(self.record))
            if self.record.state is State.RUNNING:
                return  # the runtime has known the agent for long; the proxy goes on dialling by itself
            self._stage = lambda: f"runs as {self.record.instance_id}; its forwarder: {proxy.met}"
            await proxy.ready()
            await self._move(state=State.RUNNING)
        except AdaptorError as error:
            if not isinstance(error, Stopped):
                logger.error("%s cannot run: %s", self.record.instance_name, error)
                await self._tell_failure(error)
            self.stop()
            raise
        except Exception as error:
            logger.exception("%s cannot run", self.record.instance_name)
            await self._tell_failure(error)
            self.stop()  # whatever it is, the cloud may have something of it
            raise
        finally:
            self._parts.pool.refill()

    async def _obtain(self) -> None:
        """Get the machine, unless an earlier adaptor has: one that waits, or one that the cloud makes."""
        is_new = self.record.state is State.CREATED  # otherwise the cloud may have been asked already
        await self._move(state=State.STARTING)
        if self.record.machine:  # an earlier adaptor may have ended before it told of that
            await self._tell(self._parts.observer.created(self.record))
            return
        user_data = await off_loop(self._parts.records.user_data, self.record.sandbox_id)
        if not (is_new and await self._take(user_data)):
            await self._make(user_data)

    async def _take(self, user_data: str) -> bool:
        """Take a machine that waits; returns whether there was one."""
        self._at("a machine is looked for that runs already and can be told of it")
        async with self._parts.pool.taken(self.record.spec, user_data) as machine:
            if machine is None:
                return False
            await self._move(
                machine=machine.id, instance=Instance(machine.instance_id, machine.addresses, machine.instance_type)
            )
        logger.info("%s takes %s, which has waited for a pod", self.record.instance_name, machine.name)
        await self._tell(self._parts.observer.created(self.record))
        return True

    async def _make(self, user_data: str) -> None:
        """Have the cloud make the machine, unless it has."""
        request = InstanceRequest(
            target=self.record.target,
            token=self.record.token,
            user_data=user_data,
            spec=self.record.spec,
            tags=self._parts.tags(self.record),
        )
        async with self._parts.turns.turn(self._queued):
            self._at("the cloud makes its machine")
            instance = await retrying(
                lambda: self._parts.provider.create(request),
                self._parts.calls,
                stage="the pod's machine cannot be made",
                noticed=self._noticed,
            )
        await self._made(instance)

    async def _made(self, instance: Instance) -> None:
        if not instance.addresses:
            raise AdaptorError(f"machine {instance.id} has no address")
        await self._move(instance=instance)
        self._at(f"runs as {instance.id}")
        logger.info("%s runs as %s at %s", self.record.instance_name, instance.id, instance.addresses[0])
        await self._tell(self._parts.observer.created(self.record))

    def _noticed(self, error: ProviderError, wait: float) -> None:
        logger.warning("%s: %s; tried again in %.1f s", self.record.instance_name, error, wait)
        self._at(f"the cloud {'throttles' if error.fault is Fault.THROTTLE else 'fails'}: {error}; it is asked again")

    def _queued(self, before: Callable[[], int]) -> None:
        turns = self._parts.turns
        self._stage = lambda: f"waits its turn, {before()} before it and {turns.busy} being made"

    def _at(self, stage: str) -> None:
        self._stage = lambda: stage

    async def _stop(self) -> None:
        try:
            await self._move(state=State.STOPPING)
        except AdaptorError as error:  # a full disk; only a kill before the end would make a difference now
            logger.warning("%s is deleted without a record of it: %s", self.record.instance_name, error)
        finally:
            self._stop_noted.set()
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        try:
            await self._open.aclose()
            await self._parts.tunnel.tear_down(self.record)
        except Exception:
            logger.exception("%s: something of it stays on this node", self.record.instance_name)
        name = self.record.instance_name
        await insist(lambda: self._parts.provider.delete(self.record.target), name)
        await insist(lambda: off_loop(self._parts.records.remove, self.record.sandbox_id), name)
        logger.info("%s is deleted", self.record.instance_name)
        await self._tell(self._parts.observer.deleted(self.record))
        self._gone(self.record.sandbox_id)

    async def _move(
        self,
        *,
        state: State | None = None,
        instance: Instance | None = None,
        machine: str = "",
    ) -> None:
        self.record = replace(
            self.record,
            state=state or self.record.state,
            machine=machine or self.record.machine,
        )
        if instance is not None:
            self.record = replace(
                self.record,
                instance_id=instance.id,
                addresses=instance.addresses,
                instance_type=instance.instance_type,
            )
        await off_loop(self._parts.records.update, self.record)

    async def _tell_failure(self, error: Exception) -> None:
        failure = Failure.of(self.record, error)
        self._at(failure.message)  # the caller's patience may end while others are told
        await self._tell(self._parts.observer.failed(failure))

    async def _tell(self, telling: Awaitable[None]) -> None:
        try:
            await telling
        except Exception:
            logger.exception("%s: nobody could be told", self.record.instance_name)


def _seen(task: asyncio.Task[None]) -> None:
    """Whoever waits for a start sees its error; nobody may wait."""
    if not task.cancelled():
        task.exception()
