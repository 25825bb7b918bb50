"""What a pool is made with, and who is told of its machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from kata_caa.credentials import Credentials
from kata_caa.dialing import Endpoint
from kata_caa.faults import CALLS, RetryPolicy
from kata_caa.pool.machine import Machine, MachineRecords
from kata_caa.providers.api import Provider
from kata_caa.turns import Turns


class Observer(Protocol):
    """Who is told of machines that wait. None of it may fail, or take long."""

    async def waits(self, machine: Machine) -> None:
        """The cloud has made it."""

    async def waited(self, machine: Machine) -> None:
        """It is a pod's now, or the cloud has confirmed that nothing is left."""


@dataclass(frozen=True, slots=True)
class PoolParts:
    """What a pool is made with.

    Attributes:
        provider: The cloud.
        records: Where the machines are written down.
        credentials: Makes their keys.
        endpoint: Where a machine's forwarder is.
        turns: How many machines are asked for at a time, pods' included.
        tags: What machines bear.
        observer: Who is told.
        timeout: Seconds for a machine to come up.
        settings: A digest of the cloud's settings: a machine of others is no pod's.
        scratch: Whether machines make themselves an encrypted scratch space, which they do when they boot; a machine
            that was told otherwise is no pod's.
        calls: What is tried again of calls to the cloud.
    """

    provider: Provider
    records: MachineRecords
    credentials: Credentials
    endpoint: Callable[[Machine], Awaitable[Endpoint]]
    turns: Turns
    tags: Callable[[Machine], tuple[tuple[str, str], ...]]
    observer: Observer
    timeout: float
    settings: str = ""
    scratch: bool = False
    calls: RetryPolicy = CALLS
