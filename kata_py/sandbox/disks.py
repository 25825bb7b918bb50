"""The disks of a sandbox's machine: plugged in for the first container that uses one, taken out after the last."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.hypervisor.api import BlockDevice, GrowsDisks, GuestDevice, HypervisorError, Vm
from kata_py.resource.blocking import off_loop
from kata_py.sandbox.errors import InvalidArgument, NotFound, Unimplemented

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
        self._mounted: dict[Path, str] = {}
        self._turn = asyncio.Lock()

    def mount_point(self, path: Path) -> str | None:
        """Where the guest has mounted the disk with that content; None if it has not."""
        return self._mounted.get(path)

    async def grow(self, path: Path, size: int) -> None:
        """Make a plugged-in disk larger.

        Args:
            path: Its content: an image file, which is made that long, or a block device, which is so already.
            size: Bytes.

        Raises:
            InvalidArgument: It would be smaller, or the device has not that much.
            NotFound: No such disk is plugged in.
            HypervisorError: The machine refused.
        """
        async with self._turn:
            if path not in self._plugged:
                raise NotFound(f"no disk {path} is plugged in")
            present, is_file = await off_loop(_size_of, path)
            if is_file and size < present:
                raise InvalidArgument(f"{path} has {present} bytes, and a disk in use cannot become smaller ({size})")
            if not is_file and size > present:
                raise InvalidArgument(f"{path} has {present} bytes, not {size}: its storage has to grow it first")
            if not isinstance(self._vm, GrowsDisks):
                raise Unimplemented("disks of this kind of machine cannot grow")
            await self._vm.grow_disk(self._plugged[path][0], size if is_file else present)

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
                    self._mounted[use.device.path] = use.storage.mount_point
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
                    self._mounted.pop(device.path, None)
                    await self._unplug(found)

    async def _unplug(self, device: GuestDevice) -> None:
        try:
            await self._vm.detach(device)
        except HypervisorError as error:  # it goes with the machine, or has gone with it
            logger.info("disk %s stays plugged in: %s", device.id, error)


def _size_of(path: Path) -> tuple[int, bool]:
    """Bytes of a disk's content, and whether it is a file."""
    with path.open("rb") as content:
        return content.seek(0, os.SEEK_END), stat.S_ISREG(os.fstat(content.fileno()).st_mode)
