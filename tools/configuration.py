"""A configuration.toml for the guest under build/guest: what the demo, the benches and the tests give the shim."""

from __future__ import annotations

import json
from pathlib import Path

_HYPERVISOR = """\
# Written by {program}; the shipped, commented one is configs/configuration-qemu.toml.
[hypervisor.{hypervisor}]
default_memory = {memory}
{extra}
[agent.kata]
dial_timeout = {dial_timeout}

[runtime]
enable_debug = true
"""

_MACHINE = """\
path = "/usr/bin/qemu-system-x86_64"
virtio_fs_daemon = "/usr/lib/qemu/virtiofsd"
kernel = "{guest}/{kernel}"
initramfs = "{guest}/{initramfs}"
image = "{guest}/{image}"
rootfs_type = "{image_fstype}"
kernel_params = "{parameters}"
"""


def write(
    path: Path,
    guest: Path | None,
    *,
    program: str,
    hypervisor: str = "qemu",
    memory: int = 512,
    dial_timeout: int = 60,
    extra: str = "",
) -> Path:
    """Write the file for a built guest and return its path.

    Args:
        path: The file to write; its directory is made.
        guest: The folder that `make guest` filled, with its `boot.json`; None for a driver that boots nothing.
        program: Who writes it, for the comment.
        hypervisor: Driver name, the table's name.
        memory: Guest memory in MiB.
        dial_timeout: Seconds until the agent must answer; a guest under emulation takes its time.
        extra: Further lines for the hypervisor's table.

    Raises:
        FileNotFoundError: There is no guest; `make guest` builds it.
    """
    if guest is not None:
        extra = machine(guest, guest.absolute()) + extra
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        _HYPERVISOR.format(
            program=program, hypervisor=hypervisor, memory=memory, dial_timeout=dial_timeout, extra=extra
        )
    )
    return path


def machine(built: Path, installed: Path) -> str:
    """The lines that name the guest's files.

    Args:
        built: The folder that `make guest` filled.
        installed: Where the files will be when the shim reads the lines.

    Raises:
        FileNotFoundError: There is no guest; `make guest` builds it.
    """
    boot = json.loads((built / "boot.json").read_text())
    boot["parameters"] = " ".join(boot["parameters"])
    return _MACHINE.format(guest=installed, **boot)
