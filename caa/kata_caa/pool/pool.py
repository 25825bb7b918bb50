"""Machines that run and wait, so that a pod need not wait for one.

A machine is made of user data without a pod, and answers then that it waits. A pod of its kind is written into it by
its forwarder, which takes far less time than a boot. Each step is on record before it is taken: a machine that may
have been told of a pod is that pod's or is deleted, whatever is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from kata_caa import apf, dialing, userdata
from kata_caa.deletion import insist
from kata_caa.dialing import Endpoint
from kata_caa.errors import AdaptorError, InvalidRequest, ProviderError, ProxyError
from kata_caa.faults import retrying
from kata_caa.instance import machine_name
from kata_caa.pool import unbound
from kata_caa.pool.machine import Machine, Phase
from kata_caa.pool.parts import PoolParts
from kata_caa.pool.wish import Budget, Wish, kind_of
from kata_caa.providers.api import InstanceRequest, InstanceSpec, Resolves
from kata_caa.record import RecordError
from kata_caa.userdata import File
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 60.0  # seconds between two looks whether a machine waits still
LOST_AFTER = 3  # looks at which it did not answer
PAUSE = 10.0  # seconds before a kind of machine that could not be made is tried again; doubles
PAUSE_MAX = 600.0
_SHARE = 4  # the part of all turns that the pool may have: pods' own machines go first


@dataclass(slots=True)
class _Life:
    """A machine, and who looks after it."""

    machine: Machine
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long a kind of machine is not tried again, and how long the next time."""

    until: float
    pause: float


def type_of(machine: Machine) -> str:
    """The cloud's type of a machine, or as long as that is not known, the one that is asked for."""
    return machine.instance_type or machine.spec.instance_type


class Pool:
    """The machines of this node that wait for a pod.

    Args:
        parts: What it is made with.
        wishes: Which machines shall wait.
        budget: What they may cost.
    """

    def __init__(self, parts: PoolParts, wishes: Sequence[Wish], budget: Budget) -> None:
        self._parts = parts
        self._wishes = wishes
        self._budget = budget
        self._kinds: Mapping[Wish, InstanceSpec] | None = None  # as the cloud understands them
        self._lives: dict[str, _Life] = {}
        self._lent: list[InstanceSpec] = []  # kinds of those that were taken, and are not to be replaced yet
        self._rests: dict[InstanceSpec, _Rest] = {}
        self._over_budget: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> tuple[Machine, ...]:
        """The machines that a pod could have now."""
        return tuple(life.machine for life in self._lives.values() if life.machine.phase is Phase.WAITING)

    async def restore(self, claimed: Collection[str], *, is_whole: bool = True) -> None:
        """Take up the machines that an earlier adaptor had; those that it was not done with are deleted.

        One whose record is damaged is left as it is.

        Args:
            claimed: The machines that pods have, by their records.
            is_whole: Whether these are all; otherwise one that may be a pod's is left as it is.

        Raises:
            RecordError: A record cannot be removed.
        """
        records = self._parts.records
        for id in await off_loop(lambda: list(records.ids())):
            try:
                machine = await off_loop(records.load, id)
            except RecordError as error:
                machine = None
                if id not in claimed:
                    logger.error(
                        "a machine's record is damaged; remove it, and the sweep deletes the machine: %s", error
                    )
            if id in claimed:
                if machine is not None:
                    await self._parts.observer.waited(machine)
                await off_loop(records.remove, id)
            elif machine is None:
                continue
            elif machine.phase is Phase.BINDING and not is_whole:
                logger.warning("%s is left alone: it may be that of the pod whose record is damaged", machine.name)
            elif machine.phase is Phase.WAITING and self._made_as_now(machine):
                logger.info("%s waits for a pod, as it did when the last adaptor ended", machine.name)
                self._lives[id] = life = _Life(machine)
                life.task = self._begin(self._resume(machine), f"watch over {machine.name}")
            else:
                if machine.phase is Phase.WAITING:
                    logger.info("%s is deleted: it was made by other settings", machine.name)
                self._leave(machine)

    def begin(self) -> None:
        """Begin to keep as many machines as shall be."""
        self._begin(self._keep(), "warm pool")

    def refill(self) -> None:
        """Replace what was taken: until then a pod that starts would have to share this node's and the cloud's time."""
        self._lent.clear()
        self._wake.set()

    @asynccontextmanager
    async def taken(self, spec: InstanceSpec, user_data: str) -> AsyncIterator[Machine | None]:
        """A machine that was told of a pod; None if there is none of its kind.

        It is the pod's when the context ends, and by then on the pod's record; if the context fails it is deleted.

        Args:
            spec: What the pod asks for.
            user_data: What a machine of its own would have found when it booted.

        Raises:
            InvalidRequest: No machine would take that.
        """
        machine = await self._bound(spec, user_data) if self._wishes else None
        if machine is None:
            yield None
            return
        try:
            yield machine
        except BaseException:
            self._leave(machine)
            raise
        self._begin(self._forget(machine), f"forgetting {machine.name}")

    async def aclose(self) -> None:
        """Let go of all machines, which wait on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _bound(self, spec: InstanceSpec, user_data: str) -> Machine | None:
        try:
            kind = await self._resolve(spec)
        except ProviderError as error:
            logger.debug("no machine of the pool: %s", error)  # whoever makes one says it aloud
            return None
        while (life := self._first(kind)) is not None:
            del self._lives[life.machine.id]
            self._lent.append(kind)
            if life.task is not None:
                life.task.cancel()
            machine = replace(life.machine, phase=Phase.BINDING)
            try:
                await off_loop(self._parts.records.write, machine)
                await unbound.bind(await self._parts.endpoint(machine), user_data)
                return machine
            except BaseException as error:
                self._leave(machine)
                if isinstance(error, InvalidRequest) or not isinstance(error, AdaptorError):
                    raise
                logger.warning("%s is deleted, and another one is looked for: %s", machine.name, error)
        there = ", ".join(sorted({kind_of(each.spec) for each in self.waiting})) or "nothing"
        logger.info("no machine of the pool is of kind %s; there is: %s", kind_of(kind), there)
        return None

    def _first(self, kind: InstanceSpec) -> _Life | None:
        """Whoever has waited longest."""
        for life in self._lives.values():
            if life.machine.phase is Phase.WAITING and life.machine.spec == kind:
                return life
        return None

    def _made_as_now(self, machine: Machine) -> bool:
        return (machine.settings, machine.scratch) == (self._parts.settings, self._parts.scratch)

    async def _forget(self, machine: Machine) -> None:
        """It is a pod's, and that is on the pod's record."""
        await self._parts.observer.waited(machine)
        await insist(lambda: off_loop(self._parts.records.remove, machine.id), f"the record of {machine.name}")

    async def _keep(self) -> None:
        """Have as many machines as shall be, without end."""
        pause = PAUSE
        while True:
            self._wake.clear()
            try:
                await self._tend()
                pause = PAUSE
            except Exception as error:
                logger.warning("the warm pool: %s", error, exc_info=not isinstance(error, AdaptorError))
                self._wake_after(pause)
                pause = min(2 * pause, PAUSE_MAX)
            await self._wake.wait()

    async def _tend(self) -> None:
        kinds = self._kinds or {wish: await self._resolve(wish.spec) for wish in self._wishes}
        for kind in kinds.values():
            self._budget.require(kind.instance_type)
        for machine in self._surplus(kinds):
            logger.info("%s is deleted: fewer of kind %s shall wait now", machine.name, kind_of(machine.spec))
            self._drop(machine)
        if self._kinds is None:
            self._drop_unpaid(kinds)
            self._kinds = kinds
        left_out = set()
        held = Counter([*(life.machine.spec for life in self._lives.values()), *self._lent])
        for wish, kind in kinds.items():
            there = min(held[kind], wish.count)
            held[kind] -= there  # of two wishes that lead to the same kind each has its own
            for _ in range(wish.count - there):
                if not self._budget.allows(self._spent(), kind.instance_type):
                    left_out.add(wish.name)
                elif self._may_make(kind):
                    await self._make(wish, kind)
        if left_out - self._over_budget:
            logger.warning("fewer machines wait than -warm-pool says, of %s: the budget", ", ".join(sorted(left_out)))
        self._over_budget = frozenset(left_out)

    def _drop_unpaid(self, kinds: Mapping[Wish, InstanceSpec]) -> None:
        """Delete what an earlier adaptor had a budget for, and this one has not; kinds that are named first stay."""
        order = {kind: number for number, kind in enumerate(kinds.values())}
        spent = 0.0
        for machine in sorted(self.waiting, key=lambda each: order.get(each.spec, len(order))):
            if self._budget.allows(spent, type_of(machine)):
                spent += self._budget.price(type_of(machine))
            else:
                logger.info("%s is deleted: the budget has no money for it now", machine.name)
                self._drop(machine)

    def _surplus(self, kinds: Mapping[Wish, InstanceSpec]) -> Iterator[Machine]:
        """Machines that are not wanted any more: of another image or type, or too many."""
        room: dict[InstanceSpec, int] = {}
        for wish, kind in kinds.items():
            room[kind] = room.get(kind, 0) + wish.count
        for machine in self.waiting:
            room[machine.spec] = room.get(machine.spec, 0) - 1
            if room[machine.spec] < 0:
                yield machine

    def _spent(self) -> float:
        return sum(self._budget.price(type_of(life.machine)) for life in self._lives.values())

    def _may_make(self, kind: InstanceSpec) -> bool:
        making = sum(life.machine.phase is Phase.MAKING for life in self._lives.values())
        rest = self._rests.get(kind)
        rested = rest is None or rest.until <= asyncio.get_running_loop().time()
        return rested and making < max(1, self._parts.turns.limit // _SHARE)

    async def _make(self, wish: Wish, kind: InstanceSpec) -> None:
        id = secrets.token_hex(16)
        issued = await off_loop(self._parts.credentials.issue, machine_name(id))
        settings, scratch = self._parts.settings, self._parts.scratch
        machine = Machine(id, kind, issued.material, secrets.token_hex(16), settings=settings, scratch=scratch)
        try:
            await off_loop(self._parts.records.write, machine)
        except BaseException:
            self._leave(machine)  # something may be written
            raise
        config = replace(issued.config, unbound=True)
        files = [File(userdata.APF, apf.dump(config))]
        if scratch:
            files.append(File(userdata.SCRATCH_MARKER, ""))
        self._lives[id] = life = _Life(machine)
        life.task = self._begin(self._live(life, wish.spec, userdata.render(files)), f"start of {machine.name}")

    async def _live(self, life: _Life, spec: InstanceSpec, user_data: str) -> None:
        """Have a machine made, see that it waits, and look after it until it is taken."""
        kind = life.machine.spec
        try:
            life.machine = await self._made(life.machine, spec, user_data)
            await self._up(await self._parts.endpoint(life.machine))
            waiting = replace(life.machine, phase=Phase.WAITING)
            await off_loop(self._parts.records.write, waiting)
            life.machine = waiting  # now it may be taken, and put down as taken
        except Exception as error:
            known = isinstance(error, AdaptorError)
            logger.warning("%s cannot wait for a pod: %s", life.machine.name, error, exc_info=not known)
            before = self._rests.get(kind)
            pause = min(2 * before.pause, PAUSE_MAX) if before is not None else PAUSE
            self._rests[kind] = _Rest(asyncio.get_running_loop().time() + pause, pause)
            self._wake_after(pause)
            self._drop(life.machine)
            return
        logger.info("%s waits for a pod", life.machine.name)
        self._rests.pop(kind, None)
        self._wake.set()
        await self._watch(life.machine)

    async def _made(self, machine: Machine, spec: InstanceSpec, user_data: str) -> Machine:
        request = InstanceRequest(
            machine.target, machine.token, user_data, spec, self._parts.tags(machine)
        )  # fmt: skip
        async with self._parts.turns.turn():
            instance = await retrying(
                lambda: self._parts.provider.create(request), self._parts.calls, stage="the machine cannot be made"
            )
        if not instance.addresses:
            raise AdaptorError(f"machine {instance.id} has no address")
        made = replace(
            machine,
            instance_id=instance.id,
            addresses=instance.addresses,
            instance_type=instance.instance_type,
        )
        await off_loop(self._parts.records.write, made)
        logger.info("%s runs as %s at %s", made.name, instance.id, instance.addresses[0])
        await self._parts.observer.waits(made)
        return made

    async def _up(self, endpoint: Endpoint) -> None:
        met = "nothing was met"
        try:
            async with asyncio.timeout(self._parts.timeout):
                for pause in dialing.pauses():
                    try:
                        return await unbound.waits(endpoint)
                    except dialing.FAILURES as error:
                        met = dialing.reason(error)
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise ProxyError(
                f"{endpoint} was not ready within {self._parts.timeout:g} s: {met}; look at the machine's console, and "
                "whether the node reaches its port"
            ) from None

    async def _resume(self, machine: Machine) -> None:
        await self._parts.observer.waits(machine)  # the earlier adaptor may not have come to it
        await self._watch(machine)

    async def _watch(self, machine: Machine) -> None:
        endpoint = await self._parts.endpoint(machine)
        failed = 0
        while failed < LOST_AFTER:
            await asyncio.sleep(LOOK_INTERVAL)
            try:
                await unbound.waits(endpoint)
                failed = 0
            except ProxyError as error:
                logger.warning("%s", error)
                break
            except dialing.FAILURES as error:
                failed += 1
                logger.info("%s does not answer: %s", machine.name, dialing.reason(error))
        logger.warning("%s is deleted, and replaced: it does not wait any more", machine.name)
        self._drop(machine)
        self._wake.set()

    def _drop(self, machine: Machine) -> None:
        """Have a machine no more, which is nobody's."""
        life = self._lives.pop(machine.id)
        if life.task is not None and life.task is not asyncio.current_task():
            life.task.cancel()
        self._leave(machine)

    def _leave(self, machine: Machine) -> None:
        """Begin to delete a machine; it goes on until the cloud confirms, and if need be in the next adaptor."""
        self._begin(self._left(replace(machine, phase=Phase.LEAVING)), f"end of {machine.name}")

    async def _left(self, machine: Machine) -> None:
        with suppress(AdaptorError):  # the phase that it was in is deleted by the next adaptor too, if not waiting
            await off_loop(self._parts.records.write, machine)
        await insist(lambda: self._parts.provider.delete(machine.target), machine.name)
        await insist(lambda: off_loop(self._parts.records.remove, machine.id), machine.name)
        logger.info("%s is deleted", machine.name)
        await self._parts.observer.waited(machine)

    async def _resolve(self, spec: InstanceSpec) -> InstanceSpec:
        provider = self._parts.provider
        return await provider.resolve(spec) if isinstance(provider, Resolves) else spec

    def _wake_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._wake.set)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
