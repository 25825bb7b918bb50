"""The initramfs: a shell, the modules that root and agent wait for, and the script that uses both (guest/initramfs)."""

from __future__ import annotations

from pathlib import Path

from image.kernel import Kernel
from image.recipe import CHANNEL_MODULES, Architecture, Flavour
from image.tree import Directory, File, Link, Tree

_GUEST = Path(__file__).parent / "guest"
_APPLETS = ("modprobe", "mount", "poweroff", "sh", "switch_root")
_APPLETS_TO_FIND = ("cat", "sleep")  # besides, where devices are searched for


def initramfs(flavour: Flavour, architecture: Architecture, kernel: Kernel, files: Tree) -> Tree:
    """The initramfs of a kernel.

    Args:
        flavour: Whose script it runs.
        architecture: Whose modules are loaded.
        kernel: Where they come from.
        files: Where busybox comes from.

    Raises:
        BuildError: The kernel lacks a module.
    """
    tree = files.matching(("usr/bin/busybox",))
    for name in (*_APPLETS, *(_APPLETS_TO_FIND if architecture.found_modules else ())):
        tree.add(f"usr/bin/{name}", Link("busybox"))
    for path in ("dev", "proc", "root", *(("run", "sys") if architecture.found_modules else ())):
        tree.add(path, Directory())
    tree.add("bin", Link("usr/bin"))
    tree.add("lib", Link("usr/lib"))
    tree.add("init", File((_GUEST / flavour.initramfs).read_bytes(), executable=True))
    tree.add("modules", File(f"{' '.join(architecture.boot_modules)}\n".encode()))
    modules = (*architecture.boot_modules, *CHANNEL_MODULES, *architecture.found_modules)
    tree.update(kernel.tree(kernel.modules(modules)))
    return tree
