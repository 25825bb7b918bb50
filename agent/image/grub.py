"""GRUB for a BIOS that knows no UEFI: it loads a kernel by its place on the disk, and asks nobody.

It needs no file system of its own, no configuration on the disk and no menu: what to load stands in its core image.
Source: GRUB 2.06's manual, "Block list syntax" and "Images"; `boot.S` and `diskboot.S` for where they are patched.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from image.errors import BuildError
from image.gpt import SECTOR, aligned
from image.tree import Tree

DIRECTORY = "usr/lib/grub/i386-pc"
_MODULES = ("biosdisk", "part_gpt", "linux", "boot")
_CORE_AT = 0x5C  # in the boot sector: the core image's first sector
_DRIVE_CHECK_AT = 0x66  # a jump over the check for a BIOS that tells no drive
_NO_JUMP = b"\x90\x90"
_CODE = 440  # bytes of the boot sector that are the loader's
_BLOCKS_AT = SECTOR - 12  # in the core image's first sector: where its rest lies
_LIMIT = 1 << 20  # bytes


class Blocks(NamedTuple):
    """Consecutive sectors of the boot partition."""

    first: int
    sectors: int


def extent(first: int, offset: int, size: int) -> Blocks:
    """The sectors of a part of a file that begins at a sector."""
    return Blocks(first + offset // SECTOR, aligned(size, SECTOR) // SECTOR)


def core_image(files: Tree, partition: int, kernel: Blocks, initramfs: Blocks, parameters: str, at: int) -> bytes:
    """The core image, for the sector that it is to be at.

    Args:
        files: GRUB's modules for BIOS.
        partition: Number of the partition whose sectors the others are.
        kernel: Where the kernel is.
        initramfs: Where the initramfs is.
        parameters: For the kernel.
        at: The sector of the disk.

    Raises:
        BuildError: It cannot be made.
    """
    commands = (
        f"linux {kernel.first}+{kernel.sectors} {parameters}",
        f"initrd {initramfs.first}+{initramfs.sectors}",
        "boot",
    )
    with tempfile.TemporaryDirectory(prefix="grub-") as name:
        directory = Path(name)
        files.matching((f"{DIRECTORY}/**",)).write(directory)
        configuration, core = directory / "commands", directory / "core"
        configuration.write_text("".join(f"{command}\n" for command in commands))
        command: list[str | Path] = ["grub-mkimage", "--format", "i386-pc", "--directory", directory / DIRECTORY]
        command += ["--config", configuration, "--prefix", f"(,gpt{partition})/", "--output", core, *_MODULES]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise BuildError("grub-mkimage is not here", "run: apt-get install grub-common") from error
        if done.returncode:
            raise BuildError(
                f"grub-mkimage failed: {done.stderr.strip()}", "is it of another version than its modules?"
            )
        image = bytearray(core.read_bytes())
    if len(image) > _LIMIT:
        raise BuildError(f"GRUB has {len(image)} bytes, more than {_LIMIT}", "see its modules in grub.py")
    struct.pack_into("<Q", image, _BLOCKS_AT, at + 1)
    return bytes(image)


def boot_sector(files: Tree, core_at: int) -> bytes:
    """The code of the disk's first sector.

    Args:
        files: GRUB's for BIOS.
        core_at: The core image's first sector.

    Raises:
        BuildError: GRUB has none.
    """
    sector = bytearray(files.file(f"{DIRECTORY}/boot.img"))
    struct.pack_into("<Q", sector, _CORE_AT, core_at)
    sector[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + len(_NO_JUMP)] = _NO_JUMP
    return bytes(sector[:_CODE])
