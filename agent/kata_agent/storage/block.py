"""Block devices with a file system, found by what the host knows of them."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError, InvalidArgument, Unimplemented
from kata_agent.storage.mounting import mount, unmount

if TYPE_CHECKING:
    from kata_agent.device.finder import Finder
    from kata_agent.storage.context import Cleanup, Context, Workshop
    from kata_protos.agent_pb2 import Storage

_CREATE_FILESYSTEM = "create_filesystem"
_ENCRYPTION_KEY = "encryption_key"

# As upstream's: for data that is gone with the pod, without a journal and with few inodes.
_MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-F", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128")
_MKE2FS_TIMEOUT = 60.0  # seconds

# Source: Linux `Documentation/filesystems/ext4/super.rst`.
_SUPERBLOCK, _MAGIC_AT, _UUID_AT = 1024, 0x38, 0x68
_MAGIC = b"\x53\xef"


async def mount_device(storage: Storage, context: Context) -> Cleanup:
    """Wait for the device, make a file system if that is asked for, and mount.

    Raises:
        InvalidArgument: The source or a driver option has not its form; the source is no block device.
        Unimplemented: The device is to be encrypted.
        AgentError: The device did not appear, or mke2fs failed.
        OSError: The kernel refuses the mount.
    """
    create = _wants_file_system(storage)
    storage.source = await _find(storage, context.workshop.finder)
    if create:
        await make_file_system(storage.source, context.workshop)
    await asyncio.to_thread(mount, storage)
    mount_point = storage.mount_point

    async def cleanup() -> None:
        await asyncio.to_thread(unmount, mount_point)

    return cleanup


async def _find(storage: Storage, finder: Finder) -> str:
    source = storage.source
    match storage.driver:
        case "blk-ccw":
            return await finder.ccw_block(source)
        case "scsi":
            return await finder.scsi_disk(source)
        case "nvdimm":
            return await finder.pmem(source)
        case "mmioblk":
            return await finder.block(source)
        case _:
            if not source.startswith("/dev"):
                return await finder.virtio_block(source)
            _check_block_device(source)
            return source


def _check_block_device(path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise AgentError(f"get metadata on file {path!r}: {error.strerror}") from error
    if not stat.S_ISBLK(mode):
        raise InvalidArgument(f"Invalid device {path}: no block device")


def _wants_file_system(storage: Storage) -> bool:
    create = False
    for option in storage.driver_options:
        name, _, value = option.partition("=")
        if name == _CREATE_FILESYSTEM:
            create = value != "false"
        elif name == _ENCRYPTION_KEY:
            raise Unimplemented(f"storage {storage.mount_point}: {option} needs a confidential guest")
        else:
            raise Unimplemented(f"storage {storage.mount_point}: driver option {option} is not supported")
    if create and storage.fstype != "ext4":
        raise InvalidArgument(
            f"storage {storage.mount_point}: create_filesystem makes ext4 only, not {storage.fstype!r}"
        )
    return create


async def make_file_system(node: str, workshop: Workshop) -> None:
    """Make an ext4, unless it is there from an earlier use by this sandbox: its data lives as long as the pod."""
    if await asyncio.to_thread(ext4_uuid, Path(node)) in workshop.formatted:
        return
    output = os.memfd_create("mke2fs", os.MFD_CLOEXEC)
    try:
        code = await workshop.reaper.run((*_MKE2FS, node), streams=(output,) * 3, timeout=_MKE2FS_TIMEOUT)
        said = os.pread(output, 4096, 0).decode(errors="replace").strip()
    except (OSError, TimeoutError) as error:
        raise AgentError(f"cannot make a file system on {node}: {error}") from error
    finally:
        os.close(output)
    uuid = await asyncio.to_thread(ext4_uuid, Path(node))
    if code != 0 or uuid is None:
        raise AgentError(f"cannot make a file system on {node}: {said or f'mke2fs ended with status {code}'}")
    workshop.formatted.add(uuid)


def ext4_uuid(device: Path) -> bytes | None:
    """The UUID of the ext4 on a device; None if there is none."""
    with device.open("rb") as file:
        file.seek(_SUPERBLOCK)
        block = file.read(1024)
    if block[_MAGIC_AT : _MAGIC_AT + 2] != _MAGIC:
        return None
    return block[_UUID_AT : _UUID_AT + 16]
