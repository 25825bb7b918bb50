"""What a storage driver is given besides the storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper
    from kata_agent.device.finder import Finder

Cleanup = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Workshop:
    """What all drivers work with, for as long as the sandbox lives.

    Attributes:
        finder: Finds devices.
        reaper: Runs programs.
        formatted: UUIDs of the file systems made here, which are not made again.
    """

    finder: Finder
    reaper: Reaper
    formatted: set[bytes] = field(default_factory=set)


class Context(NamedTuple):
    """For one storage.

    Attributes:
        workshop: What all drivers work with.
        container_id: For whom it is made; empty for the sandbox.
    """

    workshop: Workshop
    container_id: str
