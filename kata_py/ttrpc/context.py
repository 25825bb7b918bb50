"""What a handler knows of its call besides the request."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from kata_py.ttrpc.envelope import fold


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Context:
    """One call's surroundings.

    A call is abandoned when its deadline passes or its connection is lost. Its handler runs on nevertheless,
    as what it has begun must not be left half done, unless it says by `cancel_if_abandoned` that from here
    on nothing would be lost.

    Attributes:
        service: Full name of the service called.
        method: Name of the method called.
        deadline: When the caller stops waiting, in the event loop's time; None is never.
        peer: The caller, where the transport knows it.
        abandoned: Whether nobody waits for the answer any more.
    """

    __slots__ = ("_cancellable", "_pairs", "abandoned", "deadline", "method", "peer", "service", "task")

    def __init__(
        self,
        service: str,
        method: str,
        pairs: tuple[tuple[str, str], ...] = (),
        deadline: float | None = None,
        peer: Peer | None = None,
        *,
        cancellable: bool = False,
    ) -> None:
        self.service = service
        self.method = method
        self.deadline = deadline
        self.peer = peer
        self.abandoned = False
        self.task: asyncio.Task[Any] | None = None  # set by the server
        self._pairs = pairs
        self._cancellable = cancellable

    def __str__(self) -> str:
        """For logs: `containerd.task.v2.Task/State`."""
        return f"{self.service}/{self.method}"

    @property
    def metadata(self) -> dict[str, list[str]]:
        """What the caller sent along: keys in lower case, each with its values in order."""
        return fold(self._pairs)

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None when there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def cancel_if_abandoned(self) -> None:
        """From here on this handler may be cancelled when its call is abandoned, also if that has happened."""
        self._cancellable = True
        if self.abandoned:
            self.abandon()

    def abandon(self) -> None:
        """For the server: nobody waits any more."""
        self.abandoned = True
        if self._cancellable and self.task is not None:
            self.task.cancel()
