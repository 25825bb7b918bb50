"""Calls for what is mounted."""

from __future__ import annotations

import asyncio
import logging
import os

from google.protobuf.empty_pb2 import Empty

from kata_agent import linux, shared_file, volume
from kata_agent.errors import AgentError
from kata_agent.rpc.boundary import Calls
from kata_agent.storage import mounting
from kata_protos import agent_pb2, csi_pb2
from kata_py.ttrpc.context import Context

_LOG = logging.getLogger(__name__)


class VolumeCalls(Calls):
    """Statistics and sizes of volumes; mounts that change while containers use them."""

    async def GetVolumeStats(
        self, request: agent_pb2.VolumeStatsRequest, context: Context
    ) -> csi_pb2.VolumeStatsResponse:
        """How full a volume is."""
        return await asyncio.to_thread(volume.stats, request.volume_guest_path)

    async def ResizeVolume(self, request: agent_pb2.ResizeVolumeRequest, context: Context) -> Empty:
        """Let a file system take all of its disk."""
        await volume.resize(self.reaper, request.volume_guest_path, request.size)
        return Empty()

    async def UpdateEphemeralMounts(self, request: agent_pb2.UpdateEphemeralMountsRequest, context: Context) -> Empty:
        """Mount file systems in memory anew, as hosts do to change their size; those without options stay."""
        for storage in request.storages:
            if storage.driver != "ephemeral":
                raise AgentError(f"cannot update {storage.mount_point}: {storage.driver} storage is not ephemeral")
            if storage.options:
                await asyncio.to_thread(mounting.mount, storage, without=("fsgid",))
        return Empty()

    async def RemoveStaleVirtiofsShareMounts(
        self, request: agent_pb2.RemoveStaleVirtiofsShareMountsRequest, context: Context
    ) -> Empty:
        """Look at each mount in the share, by which the kernel forgets those that the host has removed."""
        await asyncio.to_thread(_revalidate, f"{shared_file.ROOT}/")
        return Empty()


def _revalidate(root: str) -> None:
    for mount in linux.mounts():
        if mount.target.startswith(root):
            try:
                os.stat(mount.target)  # noqa: PTH116 a string serves
            except OSError as error:
                _LOG.warning("%s is stale: %s", mount.target, error.strerror)
