"""The disk that a cloud boots a peer pod's machine from: kernel, initramfs and root, and what starts them.

On x86_64 by UEFI, from a unified kernel image, or by a BIOS, whose GRUB reads kernel and initramfs out of that same
image: so there is one of each. On s390x by the map of blocks that the firmware follows. The root is a partition of its
own, which the initramfs finds by its label.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image import gpt, grub, zipl
from image.errors import BuildError
from image.fat import file_system
from image.gpt import SECTOR, Partition, aligned
from image.tree import Tree
from image.uki import unified

STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
TOOLS = (STUB, f"{grub.DIRECTORY}/**")  # of the packages that boot a disk
_PROGRAM = "EFI/BOOT/BOOTX64.EFI"  # what UEFI starts from a disk that it knows nothing of
_GRUB_SIZE = 1 << 20  # bytes
_EFI_SIZE = 40 << 20  # at least: FAT32 has no smaller ones
_EFI_SPACE = 4 << 20  # beyond the program, for the tables


@dataclass(frozen=True, slots=True)
class Content:
    """What a disk is made of.

    Attributes:
        kernel: As it boots by itself.
        initramfs: What finds the root.
        root: The root's image.
        root_label: What its partition is called.
        parameters: The kernel's.
        tools: What the packages have of `TOOLS`.
    """

    kernel: bytes
    initramfs: bytes
    root: Path
    root_label: str
    parameters: str
    tools: Tree


@dataclass(frozen=True, slots=True)
class _Layout:
    """A disk but for its root: partitions, sectors of all, code of the first sector, bytes by partition."""

    partitions: tuple[Partition, ...]
    sectors: int
    code: bytes
    contents: Sequence[bytes]


def write_disk(machine: str, content: Content, disk: Path) -> None:
    """Write a raw disk, sparse; the same content gives the same bytes.

    Args:
        machine: What `uname -m` says.
        content: What it is made of.
        disk: The file.

    Raises:
        BuildError: There is no such machine, or something does not fit.
        OSError: The file cannot be written.
    """
    if machine not in _LAYOUTS:
        raise BuildError(f"no disk boots on {machine}", f"there are those for {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[machine](content)
    first, last = gpt.tables(layout.partitions, layout.sectors)
    with disk.open("wb") as file, content.root.open("rb") as root:
        file.truncate(layout.sectors * SECTOR)
        file.write(layout.code + first[len(layout.code) :])
        for partition, data in zip(layout.partitions, layout.contents, strict=False):  # the root is the last
            file.seek(partition.first * SECTOR)
            file.write(data)
        file.seek(layout.partitions[-1].first * SECTOR)
        shutil.copyfileobj(root, file, 1 << 20)
        file.seek(layout.sectors * SECTOR - len(last))
        file.write(last)


def pack_disk(raw: Path, packed: Path) -> None:
    """The disk as a compressed qcow2, which any QEMU reads.

    Raises:
        BuildError: qemu-img failed.
    """
    command: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, packed]
    try:
        packed.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("qemu-img is not here", "run: apt-get install qemu-utils") from error
    if done.returncode:
        raise BuildError(f"qemu-img failed: {done.stderr.strip()}", "is the disk full?")


def _pc(content: Content) -> _Layout:
    program, places = unified(
        content.tools.file(STUB),
        (
            (".cmdline", content.parameters.encode()),
            (".linux", content.kernel),
            (".initrd", content.initramfs),
        ),
    )
    size = max(_EFI_SIZE, aligned(len(program) + _EFI_SPACE, gpt.ALIGNMENT * SECTOR))
    partitions, sectors = gpt.place(
        (
            ("kata-grub", gpt.BIOS_BOOT, _GRUB_SIZE),
            ("kata-efi", gpt.EFI_SYSTEM, size),
            (content.root_label, _ROOTS["x86_64"], content.root.stat().st_size),
        )
    )
    system = file_system(size, _PROGRAM, program)
    kernel, initramfs = (grub.extent(system.file, *places[name]) for name in (".linux", ".initrd"))
    core_at = partitions[0].first
    core = grub.core_image(content.tools, 2, kernel, initramfs, content.parameters, core_at)
    return _Layout(partitions, sectors, grub.boot_sector(content.tools, core_at), (core, system.data))


def _s390x(content: Content) -> _Layout:
    parts = zipl.components(content.kernel, content.initramfs, content.parameters)
    partitions, sectors = gpt.place(
        (
            ("kata-boot", gpt.RESERVED, len(zipl.boot_map(parts, 0))),
            (content.root_label, _ROOTS["s390x"], content.root.stat().st_size),
        )
    )
    at = partitions[0].first
    return _Layout(partitions, sectors, zipl.boot_block(at), (zipl.boot_map(parts, at),))


_LAYOUTS: Mapping[str, Callable[[Content], _Layout]] = {"x86_64": _pc, "s390x": _s390x}
_ROOTS: Mapping[str, str] = {
    "x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "s390x": "5eead9a9-fe09-4a1e-a1d7-520d00531306",
}
