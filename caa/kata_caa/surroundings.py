"""What a node is a part of: a cluster that is told of its pods and knows their secrets, or nothing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from kata_caa.peer import Failure, Observer
from kata_caa.pods import Pods, PullSecrets
from kata_caa.pool.machine import Machine
from kata_caa.pool.parts import Observer as PoolObserver
from kata_caa.record import PodRecord


class Surroundings(Observer, PoolObserver, PullSecrets, Protocol):
    """A cluster."""

    def joined(self, pods: Pods) -> AbstractAsyncContextManager[None]:
        """Be a part of it: the node's capacity is advertised as long as the context lasts.

        Raises:
            AdaptorError: The cluster does not let us.
        """


class Alone:
    """A node of no cluster."""

    async def created(self, record: PodRecord) -> None:
        """Nobody is told."""

    async def failed(self, failure: Failure) -> None:
        """Nobody is told but the runtime."""

    async def deleted(self, record: PodRecord) -> None:
        """Nobody is told."""

    async def waits(self, machine: Machine) -> None:
        """Nobody is told."""

    async def waited(self, machine: Machine) -> None:
        """Nobody is told."""

    async def auth_json(self, namespace: str, pod: str) -> str:
        """Nobody knows any."""
        return ""

    def joined(self, pods: Pods) -> AbstractAsyncContextManager[None]:
        """Nothing to be a part of."""
        return nullcontext()
