"""The disks of a sandbox's machine: plugged in for the first container that uses one, taken out after the last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.hypervisor.api import BlockDevice, GuestDevice, HypervisorError, Vm

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a container does with a disk.

    Attributes:
        device: The disk.
        node: The path of its device node in the container; empty if it is mounted instead.
        storage: Where and how the guest mounts it; the source is filled in when it is known.
    """

    device: BlockDevice
    node: str = ""
    storage: agent_pb2.Storage | None = None


class Disks:
    """The disks of one machine. A disk that two containers use is plugged in once.

    Args:
        vm: The machine.
    """

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._plugged: dict[Path, tuple[GuestDevice, int]] = {}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def given(
        self, request: agent_pb2.CreateContainerRequest, uses: Sequence[DiskUse]
    ) -> AsyncIterator[agent_pb2.CreateContainerRequest]:
        """The request of a container with its disks in it, which stay plugged in until the context ends.

        Raises:
            HypervisorError: A disk cannot be plugged in.
        """
        if not uses:
            yield request
            return
        told = agent_pb2.CreateContainerRequest()
        told.CopyFrom(request)
        del told.storages[:]
        async with AsyncExitStack() as stack:
            for use in uses:
                found = await stack.enter_async_context(self._disk(use.device))
                if use.storage is None:
                    told.devices.add(id=found.address, type=found.driver, container_path=use.node)
                else:
                    storage = told.storages.add()
                    storage.CopyFrom(use.storage)
                    storage.driver, storage.source = found.driver, found.address
            told.storages.extend(request.storages)
            yield told

    @asynccontextmanager
    async def _disk(self, device: BlockDevice) -> AsyncIterator[GuestDevice]:
        async with self._turn:
            known = self._plugged.get(device.path)
            found, uses = known or (await self._vm.attach(device), 0)
            self._plugged[device.path] = found, uses + 1
        try:
            yield found
        finally:
            async with self._turn:
                found, uses = self._plugged[device.path]
                if uses > 1:
                    self._plugged[device.path] = found, uses - 1
                else:
                    del self._plugged[device.path]
                    await self._unplug(found)

    async def _unplug(self, device: GuestDevice) -> None:
        try:
            await self._vm.detach(device)
        except HypervisorError as error:  # it goes with the machine, or has gone with it
            logger.info("disk %s stays plugged in: %s", device.id, error)
