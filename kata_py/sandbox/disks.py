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
from kata_py.resource.journal import Journal
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from kata_py.storage import direct

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a container does with a disk.

    Attributes:
        device: The disk.
        node: The path of its device node in the container; empty if it is mounted instead.
        storage: Where and how the guest mounts it; the source is filled in when it is known.
        direct: The path by which pods name it, if a storage driver hands it over.
        made: Whether it is an image file of ours, made when it is first used and removed with the sandbox: as large as
            the file system that it is in.
    """

    device: BlockDevice
    node: str = ""
    storage: agent_pb2.Storage | None = None
    direct: Path | None = None
    made: bool = False


@dataclass(slots=True)
class _Plugged:
    """A disk in the machine: what it is, where the guest has it, how many use it, what is undone after the last."""

    device: BlockDevice
    found: GuestDevice
    undoing: AsyncExitStack
    uses: int = 0


class Disks:
    """The disks of one machine. A disk that two containers use is plugged in once.

    Args:
        vm: The machine.
        sandbox_id: The sandbox's id.
        journal: Where changes to the host are written down.
    """

    def __init__(self, vm: Vm, sandbox_id: str, journal: Journal) -> None:
        self._vm = vm
        self._sandbox_id = sandbox_id
        self._journal = journal
        self._plugged: dict[Path, _Plugged] = {}
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
            await self._vm.grow_disk(self._plugged[path].found, size if is_file else present)

    @asynccontextmanager
    async def given(
        self, request: agent_pb2.CreateContainerRequest, uses: Sequence[DiskUse]
    ) -> AsyncIterator[agent_pb2.CreateContainerRequest]:
        """The request of a container with its disks in it, which stay plugged in until the context ends.

        Raises:
            HypervisorError: A disk cannot be plugged in.
            SandboxError: It is plugged in already, and may be written where it should not, or the other way round.
            OSError: Its image cannot be made.
        """
        if not uses:
            yield request
            return
        told = agent_pb2.CreateContainerRequest()
        told.CopyFrom(request)
        del told.storages[:]
        async with AsyncExitStack() as stack:
            for use in uses:
                found = await stack.enter_async_context(self._disk(use))
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
    async def _disk(self, use: DiskUse) -> AsyncIterator[GuestDevice]:
        path = use.device.path
        async with self._turn:
            if path not in self._plugged:
                self._plugged[path] = await self._plug(use)
            plugged = self._plugged[path]
            plugged.uses += 1
        try:
            _check(use, plugged.device)
            yield plugged.found
        finally:
            async with self._turn:
                plugged.uses -= 1
                if not plugged.uses:
                    del self._plugged[path]
                    self._mounted.pop(path, None)
                    await plugged.undoing.aclose()

    async def _plug(self, use: DiskUse) -> _Plugged:
        async with AsyncExitStack() as stack:
            if use.made:
                await off_loop(_make, use.device.path, self._journal)
            if use.direct is not None:
                stack.enter_context(direct.noted(use.direct, self._sandbox_id, self._journal))
            found = await self._vm.attach(use.device)
            stack.push_async_callback(self._unplug, found)
            return _Plugged(use.device, found, stack.pop_all())

    async def _unplug(self, device: GuestDevice) -> None:
        try:
            await self._vm.detach(device)
        except HypervisorError as error:  # it goes with the machine, or has gone with it
            logger.info("disk %s stays plugged in: %s", device.id, error)


def _size_of(path: Path) -> tuple[int, bool]:
    """Bytes of a disk's content, and whether it is a file."""
    with path.open("rb") as content:
        return content.seek(0, os.SEEK_END), stat.S_ISREG(os.fstat(content.fileno()).st_mode)


def _check(use: DiskUse, plugged: BlockDevice) -> None:
    """Refuse a use that the disk, as it is plugged in for another container, would not keep to."""
    if plugged.read_only and not use.device.read_only:
        raise FailedPrecondition(f"{plugged.path} is read-only for another container of the pod, and so for all")
    if use.device.read_only and not plugged.read_only and use.storage is None:
        raise FailedPrecondition(f"{plugged.path} is written by another container of the pod, and so is not read-only")


def _make(path: Path, journal: Journal) -> None:
    """Make an image as large as the file system that it is in, without a block; it stays until the sandbox's end."""
    if path.exists():
        return
    journal.intend(RemoveFile(str(path)))
    room = os.statvfs(path.parent)
    with path.open("xb") as image:
        os.fchmod(image.fileno(), 0o600)
        image.truncate(room.f_blocks * room.f_frsize)
