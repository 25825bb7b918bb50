"""The sandbox's storages, counted by mount point: made at the first use, undone at the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.errors import AgentError
from kata_agent.storage import group
from kata_agent.storage.handlers import HANDLERS

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage

_LOG = logging.getLogger(__name__)


class _Entry:
    def __init__(self) -> None:
        self.uses = 1
        self.mounted = False


class StorageTable:
    """All storages of the sandbox."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._turn = asyncio.Lock()

    async def add(self, storages: Iterable[Storage]) -> list[str]:
        """Make storages, in order; one whose mount point is known is only counted.

        Returns:
            Their mount points, to be given to `release`.

        Raises:
            AgentError: A driver is unknown or failed; those made before it in this call are released.
        """
        added: list[str] = []
        try:
            for storage in storages:
                async with self._turn:
                    await self._add(storage)
                added.append(storage.mount_point)
        except BaseException:
            await self.release(added)
            raise
        return added

    async def _add(self, storage: Storage) -> None:
        known = self._entries.get(storage.mount_point)
        if known is not None:
            known.uses += 1
            return
        handler = HANDLERS.get(storage.driver)
        if handler is None:
            raise AgentError(f"Failed to find the storage handler {storage.driver}")
        entry = _Entry()
        try:
            entry.mounted = await asyncio.to_thread(handler, storage)
            if storage.HasField("fs_group"):
                await asyncio.to_thread(_give_to_group, storage)
        except OSError as error:
            place = f"{storage.driver} storage {storage.source} at {storage.mount_point}"
            raise AgentError(f"cannot make {place}: {error.strerror}") from error
        if storage.shared:
            entry.uses += 1  # the sandbox's own use, which ends with the machine
        self._entries[storage.mount_point] = entry

    async def release(self, mount_points: Sequence[str]) -> None:
        """Drop one use of each, the last made first; what is not used any more is unmounted."""
        for mount_point in reversed(mount_points):
            async with self._turn:
                entry = self._entries.get(mount_point)
                if entry is None:
                    continue
                entry.uses -= 1
                if entry.uses == 0:
                    del self._entries[mount_point]
                    if entry.mounted:
                        await asyncio.to_thread(_unmount, mount_point)


def _give_to_group(storage: Storage) -> None:
    from kata_protos.agent_types_pb2 import OnRootMismatch

    group.give(
        Path(storage.mount_point),
        storage.fs_group.group_id,
        read_only="ro" in storage.options,
        only_if_root_differs=storage.fs_group.group_change_policy == OnRootMismatch,
    )


def _unmount(mount_point: str) -> None:
    try:
        linux.unmount(mount_point, linux.MNT_DETACH)
    except OSError as error:
        _LOG.warning("cannot unmount %s: %s", mount_point, error.strerror)
        return
    with contextlib.suppress(OSError):  # not ours alone
        Path(mount_point).rmdir()
