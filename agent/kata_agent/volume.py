"""Volumes that are mounted: how full they are, and making them larger."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from kata_agent import linux
from kata_agent.container.reaper import Reaper
from kata_agent.errors import AgentError, InvalidArgument, Unimplemented
from kata_protos.csi_pb2 import VolumeCondition, VolumeStatsResponse, VolumeUsage

_RESIZE_TIMEOUT = 60.0  # seconds
_SECTOR = 512  # bytes: the unit of sysfs


def stats(path: str) -> VolumeStatsResponse:
    """How full the file system of a path is, in bytes and inodes.

    Raises:
        OSError: The path cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstatvfs(fd)
    finally:
        os.close(fd)
    size = found.f_frsize
    return VolumeStatsResponse(
        usage=[
            VolumeUsage(
                available=found.f_bavail * size, total=found.f_blocks * size,
                used=(found.f_blocks - found.f_bfree) * size, unit=VolumeUsage.BYTES,
            ),
            VolumeUsage(
                available=found.f_ffree, total=found.f_files, used=found.f_files - found.f_ffree,
                unit=VolumeUsage.INODES,
            ),
        ],
        volume_condition=VolumeCondition(abnormal=False, message="OK"),
    )  # fmt: skip


async def resize(reaper: Reaper, path: str, size: int) -> None:
    """Let a mounted file system take all of its disk, which the host has made larger.

    Args:
        reaper: Starts the program that does it.
        path: Where it is mounted.
        size: Bytes that the host expects it to have room for.

    Raises:
        InvalidArgument: Nothing is mounted there.
        Unimplemented: The file system, or the guest, has no program for it.
        AgentError: The disk is smaller than that, or the program failed.
    """
    argv = await asyncio.to_thread(_resizing, path, size)
    output = os.memfd_create(argv[0], os.MFD_CLOEXEC)
    try:
        code = await reaper.run(argv, streams=(output, output, output), timeout=_RESIZE_TIMEOUT)
        said = os.pread(output, 4096, 0).decode(errors="replace").strip()
    except TimeoutError as error:
        raise AgentError(f"cannot resize {path}: {error}") from error
    finally:
        os.close(output)
    if code != 0:
        raise AgentError(f"cannot resize {path}: {said or f'{argv[0]} ended with status {code}'}")


def _resizing(path: str, size: int) -> list[str]:
    """The command that makes the file system larger."""
    target = os.path.realpath(path)
    mount = next((mount for mount in reversed(linux.mounts()) if mount.target == target), None)
    if mount is None:
        raise InvalidArgument(f"no volume is mounted at {path}")
    if mount.fstype in ("ext2", "ext3", "ext4"):
        argv = ["resize2fs", mount.source]
    elif mount.fstype == "xfs":
        argv = ["xfs_growfs", mount.target]
    else:
        raise Unimplemented(f"cannot resize {mount.fstype} at {path}")
    if shutil.which(argv[0]) is None:
        raise Unimplemented(f"cannot resize {mount.fstype} at {path}: this guest has no {argv[0]}")
    there = int(Path(f"/sys/dev/block/{mount.device}/size").read_text()) * _SECTOR
    if there < size:
        raise AgentError(f"the disk of {path} has {there} bytes, not {size}: the host has to grow it first")
    return argv
