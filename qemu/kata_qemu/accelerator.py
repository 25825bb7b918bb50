"""What runs the guest's instructions: KVM where it can run a stock guest, else emulation (TCG)."""

from __future__ import annotations

import os
from pathlib import Path

from kata_py.hypervisor.api import Accelerator, HypervisorError
from kata_py.node import kvm


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
    obstacle = kvm.obstacle(architecture, host or os.uname().machine, root)
    if not obstacle:
        return Accelerator.KVM, ""
    if wanted is Accelerator.KVM:
        raise HypervisorError("qemu", f"KVM cannot be used: {obstacle}", hint='set accelerator to "auto" or "tcg"')
    return Accelerator.TCG, obstacle
