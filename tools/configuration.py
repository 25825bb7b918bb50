"""A configuration.toml for the guest under build/guest: what the demo, the benches and the tests give the shim."""

from __future__ import annotations

import json
from pathlib import Path

_TEXT = """\
# Written by {program}; the shipped, commented one is configs/configuration-qemu.toml.
[hypervisor.{hypervisor}]
path = "/usr/bin/qemu-system-x86_64"
kernel = "{guest}/{kernel}"
initramfs = "{guest}/{initramfs}"
image = "{guest}/{image}"
rootfs_type = "{image_fstype}"
kernel_params = "{parameters}"
virtio_fs_daemon = "/usr/lib/qemu/virtiofsd"
default_memory = {memory}
{extra}
[agent.kata]
dial_timeout = {dial_timeout}

[runtime]
enable_debug = true
"""


def write(
    path: Path,
    guest: Path,
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
        guest: The folder that `make guest` filled, with its `boot.json`.
        program: Who writes it, for the comment.
        hypervisor: Driver name, the table's name.
        memory: Guest memory in MiB.
        dial_timeout: Seconds until the agent must answer; a guest under emulation takes its time.
        extra: Further lines for the hypervisor's table.

    Raises:
        FileNotFoundError: There is no guest; `make guest` builds it.
    """
    boot = json.loads((guest / "boot.json").read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        _TEXT.format(
            program=program,
            hypervisor=hypervisor,
            guest=guest.absolute(),
            kernel=boot["kernel"],
            initramfs=boot["initramfs"],
            image=boot["image"],
            image_fstype=boot["image_fstype"],
            parameters=" ".join(boot["parameters"]),
            memory=memory,
            dial_timeout=dial_timeout,
            extra=extra,
        )
    )
    return path
