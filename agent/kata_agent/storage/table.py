"""The sandbox's storages, counted by mount point: made at the first use, undone at the last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError, Unimplemented
from kata_agent.storage import group
from kata_agent.storage.context import Cleanup, Context, Workshop
from kata_agent.storage.handlers import HANDLERS, UNSUPPORTED
from kata_agent.trace import span

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage


class _Entry:
    def __init__(self) -> None:
        self.uses = 0
        self.turn = asyncio.Lock()
        self.is_made = False
        self.cleanup: Cleanup | None = None


class StorageTable:
    """All storages of the sandbox.

    Args:
        workshop: What the drivers work with.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._entries: dict[str, _Entry] = {}

    async def add(
        self, storages: Iterable[Storage], container_id: str = "", deadline: float | None = None
    ) -> list[str]:
        """Make storages, in order; one whose mount point is known is only counted.

        Args:
            storages: What is asked for.
            container_id: For whom; empty for the sandbox.
            deadline: When the host stops waiting, in the event loop's time; None is never.

        Returns:
            Their mount points, to be given to `release`.

        Raises:
            AgentError: A driver is unknown or failed; those made before it in this call are released.
        """
        added: list[str] = []
        try:
            for storage in storages:
                await self._add(storage, container_id, deadline)
                added.append(storage.mount_point)
        except BaseException:
            await self.release(added)
            raise
        return added

    async def _add(self, storage: Storage, container_id: str, deadline: float | None) -> None:
        entry = self._entries.setdefault(storage.mount_point, _Entry())
        entry.uses += 1
        try:
            async with entry.turn:
                if not entry.is_made:
                    with span(f"storage {storage.driver}", mount_point=storage.mount_point):
                        entry.cleanup = await self._make(storage, container_id, deadline)
                    entry.is_made = True
                    if storage.shared or entry.cleanup is None:
                        entry.uses += 1  # the sandbox's own use, which ends with the machine
        except BaseException:
            entry.uses -= 1
            if entry.uses == 0:
                self._entries.pop(storage.mount_point, None)
            raise

    async def _make(self, storage: Storage, container_id: str, deadline: float | None) -> Cleanup | None:
        if storage.driver in UNSUPPORTED or "X-kata.multi-layer=true" in storage.options:
            raise Unimplemented(f"the storage driver {storage.driver} is not supported by this agent")
        handler = HANDLERS.get(storage.driver)
        if handler is None:
            raise AgentError(f"Failed to find the storage handler {storage.driver}")
        source = storage.source
        try:
            cleanup = await handler(storage, Context(self._workshop, container_id, deadline))
            try:
                if storage.HasField("fs_group"):
                    await asyncio.to_thread(_give_to_group, storage)
            except BaseException:
                if cleanup is not None:
                    await cleanup()
                raise
        except OSError as error:
            place = f"{storage.driver} storage {source} at {storage.mount_point}"
            raise AgentError(f"cannot make {place}: {error.strerror}") from error
        return cleanup

    async def release(self, mount_points: Sequence[str]) -> None:
        """Drop one use of each, the last made first; what is not used any more is undone."""
        for mount_point in reversed(mount_points):
            entry = self._entries.get(mount_point)
            if entry is None:
                continue
            entry.uses -= 1
            if entry.uses > 0:
                continue
            async with entry.turn:
                if entry.uses > 0:  # wanted again meanwhile
                    continue
                cleanup, entry.cleanup, entry.is_made = entry.cleanup, None, False
                if cleanup is not None:
                    await cleanup()
            if entry.uses == 0:
                self._entries.pop(mount_point, None)


def _give_to_group(storage: Storage) -> None:
    from kata_protos.agent_types_pb2 import OnRootMismatch

    group.give(
        Path(storage.mount_point),
        storage.fs_group.group_id,
        read_only="ro" in storage.options,
        only_if_root_differs=storage.fs_group.group_change_policy == OnRootMismatch,
    )
