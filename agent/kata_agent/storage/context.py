"""What a storage driver is given besides the storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper
    from kata_agent.device.finder import Finder
    from kata_agent.image.store import ImageStore

Cleanup = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Workshop:
    """What all drivers work with, for as long as the sandbox lives.

    Attributes:
        finder: Finds devices.
        reaper: Runs programs.
        formatted: UUIDs of the file systems made here, which are not made again.
        proxies: Variables of the environment for programs that reach out of the guest.
        pause_bundle: Where the guest has what holds a pod together.
        images: What was pulled; made when it is first needed.
    """

    finder: Finder
    reaper: Reaper
    formatted: set[bytes] = field(default_factory=set)
    proxies: Mapping[str, str] = field(default_factory=dict)
    pause_bundle: Path = Path("/pause_bundle")
    images: ImageStore | None = None

    async def aclose(self) -> None:
        """End what goes on by itself."""
        if self.images is not None:
            await self.images.aclose()


class Context(NamedTuple):
    """For one storage.

    Attributes:
        workshop: What all drivers work with.
        container_id: For whom it is made; empty for the sandbox.
        deadline: When the host stops waiting, in the event loop's time; None is never.
    """

    workshop: Workshop
    container_id: str
    deadline: float | None = None
