"""KVM: whether it can run a stock guest, and whether it makes a machine when it is asked to.

Source: the kernel's `Documentation/virt/kvm/api.rst`, 4.1 and 4.2.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_GET_API_VERSION, _CREATE_VM = 0xAE00, 0xAE01
_VERSION = 12  # the only one there has been since Linux 2.6.22


def obstacle(architecture: str, host: str, root: Path = Path("/")) -> str:
    """Why KVM cannot run a stock guest of the architecture here; empty when it can.

    A hypervisor may offer its guests a `/dev/kvm` that only runs guests made for it: there is neither
    `kvm_intel` nor `kvm_amd`, and a stock kernel hangs under it.

    Args:
        architecture: The guest's, as `uname -m` has it.
        host: The host's.
        root: Where the host's /dev, /proc and /sys are.
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


def refusal(device: Path = Path("/dev/kvm")) -> str:
    """Make a machine and let go of it; why that fails, or empty. It runs nothing in it."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, _GET_API_VERSION, 0)
        if version != _VERSION:
            return f"{device} speaks version {version} of KVM, not {_VERSION}"
        os.close(fcntl.ioctl(descriptor, _CREATE_VM, 0))
    except OSError as error:
        return f"{device} makes no machine: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""
