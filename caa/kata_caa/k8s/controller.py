"""Deletes the machines of pods that have gone, where no adaptor does: its node is lost, or it has lost its memory.

It follows the PeerPods of the cluster. Of those that one pod owns, all but the youngest are left over and deleted; of
one that is deleted and still has our finalizer, the machine is deleted first. There is no election of a leader: of two
controllers, the second finds nothing left to delete. Source: cloud-api-adaptor
`src/peerpod-ctrl/controllers/peerpod_controller.go`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from kata_caa.errors import ProviderError
from kata_caa.k8s import peerpod
from kata_caa.k8s.api import EVERYWHERE, Api, ClusterError
from kata_caa.k8s.peerpod import FINALIZER, PeerPod, PeerPodObject
from kata_caa.providers.api import Provider
from kata_caa.turns import Turns

logger = logging.getLogger(__name__)

_GONE = 410  # HTTP: the version that a watch goes on from is too old


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait before something is tried again, in seconds: doubled each time."""

    first: float = 1.0
    longest: float = 300.0

    def __iter__(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield pause
            pause = min(2 * pause, self.longest)


class Controller:
    """Follows PeerPods.

    Args:
        api: The API server.
        provider: The cloud.
        name: The cloud, in the word that PeerPods have for it; those of another one are left alone.
        concurrent: How many machines are deleted at a time.
        pauses: Between tries.
    """

    def __init__(
        self, api: Api, provider: Provider, name: str, *, concurrent: int = 8, pauses: Pauses | None = None
    ) -> None:
        self._api = api
        self._provider = provider
        self._name = name
        self._turns = Turns(concurrent)
        self._pauses = pauses or Pauses()
        self._known: dict[str, PeerPodObject] = {}
        self._busy: set[str] = set()

    async def run(self) -> NoReturn:
        """Follow until cancelled; an API server that has gone is waited for."""
        async with asyncio.TaskGroup() as tasks:
            pauses = iter(self._pauses)
            while True:
                try:
                    async for thing in self._changes():
                        pauses = iter(self._pauses)
                        self._consider(thing, tasks)
                except ClusterError as error:
                    if error.code == _GONE:
                        logger.info("PeerPods are listed again: %s", error)
                    else:
                        logger.warning("PeerPods cannot be followed: %s", error)
                await asyncio.sleep(next(pauses))
        raise AssertionError("a controller goes on for ever")

    async def _changes(self) -> AsyncIterator[PeerPodObject]:
        found, version = await self._api.list(PeerPod, EVERYWHERE)
        self._known = {_uid(each): each for each in found}
        for each in found:
            yield each
        async for how, thing in self._api.watch(PeerPod, version, EVERYWHERE):
            if how == "DELETED":
                self._known.pop(_uid(thing), None)
            else:
                self._known[_uid(thing)] = thing
                yield thing

    def _consider(self, thing: PeerPodObject, tasks: asyncio.TaskGroup) -> None:
        if thing["metadata"].get("deletionTimestamp"):
            if FINALIZER in (thing["metadata"].get("finalizers") or ()):
                self._begin(thing, self._finish, tasks)
            return
        family = [each for each in self._known.values() if _owner(each) and _owner(each) == _owner(thing)]
        youngest = max((_age(each) for each in family), default="")
        for each in family:
            if _age(each) < youngest and not each["metadata"].get("deletionTimestamp"):
                self._begin(each, self._supersede, tasks)

    def _begin(
        self, thing: PeerPodObject, act: Callable[[PeerPodObject], Awaitable[None]], tasks: asyncio.TaskGroup
    ) -> None:
        """Do something with an object, as often as it takes, unless it is being done."""
        key = f"{_uid(thing)} {act.__name__}"
        if key not in self._busy:
            self._busy.add(key)
            tasks.create_task(self._persist(key, thing, act), name=f"{act.__name__} of {_title(thing)}")

    async def _persist(self, key: str, thing: PeerPodObject, act: Callable[[PeerPodObject], Awaitable[None]]) -> None:
        try:
            for pause in self._pauses:
                if _uid(thing) not in self._known:
                    return  # somebody else has seen to it
                try:
                    async with self._turns.turn():
                        await act(thing)
                    return
                except (ProviderError, ClusterError) as error:
                    logger.warning("%s: %s; tried again in %.0f s", _title(thing), error, pause)
                await asyncio.sleep(pause)
        finally:
            self._busy.discard(key)

    async def _finish(self, thing: PeerPodObject) -> None:
        """Delete the machine, and then let the object go."""
        provider = (thing.get("spec") or {}).get("cloudProvider", "")
        if provider and provider != self._name:
            logger.warning("%s is left alone: its machine is of %s, not %s", _title(thing), provider, self._name)
            return
        target = peerpod.target_of(thing)
        if target.sandbox_id or target.instance_id:  # else nobody knows what to delete, and all of it would be too much
            await self._provider.delete(target)
        logger.info("%s: machine %s is deleted", _title(thing), target.instance_id or target.name or "(unknown)")
        await peerpod.release(self._api, thing)

    async def _supersede(self, thing: PeerPodObject) -> None:
        """Delete what an earlier sandbox of the same pod has left."""
        logger.info("%s is left over: its pod has another machine", _title(thing))
        try:
            await self._api.delete(PeerPod, thing["metadata"]["name"], thing["metadata"]["namespace"])
        except ClusterError as error:
            if not error.missing:
                raise


def _uid(thing: PeerPodObject) -> str:
    return str(thing["metadata"]["uid"])


def _age(thing: PeerPodObject) -> str:
    """When it was made: the text sorts as the time does."""
    return str(thing["metadata"].get("creationTimestamp", ""))


def _owner(thing: PeerPodObject) -> str:
    owners = thing["metadata"].get("ownerReferences") or ()
    return next((str(each.get("uid", "")) for each in owners if each.get("controller")), "")


def _title(thing: PeerPodObject) -> str:
    return f"peerpod {thing['metadata']['namespace']}/{thing['metadata']['name']}"
