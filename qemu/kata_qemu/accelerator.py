"""What runs the guest's instructions: KVM where it can run a stock guest, else emulation (TCG)."""

from __future__ import annotations

import os
from pathlib import Path

from kata_py.hypervisor.api import Accelerator, HypervisorError


def choose(
    wanted: Accelerator, architecture: str, *, host: str = "", root: Path = Path("/")
) -> tuple[Accelerator, str]:
    """Decide on the accelerator; with it, why it is not KVM although that was preferred.

    Args:
        wanted: What the configuration says.
        architecture: The guest's.
        host: The host's architecture; empty asks it.
        root: Where the host's /dev, /proc and /sys are.

    Raises:
        HypervisorError: KVM is asked for and cannot be had.
    """
    if wanted is Accelerator.TCG:
        return Accelerator.TCG, ""
    obstacle = kvm_obstacle(architecture, host or os.uname().machine, root)
    if not obstacle:
        return Accelerator.KVM, ""
    if wanted is Accelerator.KVM:
        raise HypervisorError("qemu", f"KVM cannot be used: {obstacle}", hint='set accelerator to "auto" or "tcg"')
    return Accelerator.TCG, obstacle


def kvm_obstacle(architecture: str, host: str, root: Path) -> str:
    """Why KVM cannot run a stock guest of the architecture here; empty when it can.

    A hypervisor may offer its guests a `/dev/kvm` that only runs guests made for it: there is neither
    `kvm_intel` nor `kvm_amd`, and a stock kernel hangs under it.
    """
    if architecture != host:
        return f"the guest is {architecture}, the host {host}"
    device = root / "dev/kvm"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    if architecture == "x86_64" and not any((root / "sys/module" / name).exists() for name in ("kvm_intel", "kvm_amd")):
        flags = next(
            (line for line in (root / "proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), ""
        )
        if "hypervisor" in flags.split():
            return f"{device} is paravirtual: it runs only guests made for it (no kvm_intel or kvm_amd in /sys/module)"
    return ""
