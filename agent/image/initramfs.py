"""The initramfs: a shell, the modules that root and agent wait for, and the script that uses both (guest/initramfs)."""

from __future__ import annotations

from pathlib import Path

from image.kernel import Kernel
from image.recipe import CHANNEL_MODULES, Architecture
from image.tree import Directory, File, Link, Tree

_SCRIPT = Path(__file__).parent / "guest/initramfs"


def initramfs(architecture: Architecture, kernel: Kernel, files: Tree) -> Tree:
    """The initramfs of a kernel.

    Args:
        architecture: Whose modules are loaded.
        kernel: Where they come from.
        files: Where busybox comes from.

    Raises:
        BuildError: The kernel lacks a module.
    """
    tree = files.matching(("usr/bin/busybox",))
    for name in ("modprobe", "mount", "poweroff", "sh", "switch_root"):
        tree.add(f"usr/bin/{name}", Link("busybox"))
    for path in ("dev", "proc", "root"):
        tree.add(path, Directory())
    tree.add("bin", Link("usr/bin"))
    tree.add("lib", Link("usr/lib"))
    tree.add("init", File(_SCRIPT.read_bytes(), executable=True))
    tree.add("modules", File(f"{' '.join(architecture.boot_modules)}\n".encode()))
    tree.update(kernel.tree(kernel.modules((*architecture.boot_modules, *CHANNEL_MODULES))))
    return tree
