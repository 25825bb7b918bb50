"""KVM, asked for a machine: the one proof that it is there and that one may use it.

Source: the kernel's `Documentation/virt/kvm/api.rst`, 4.1 and 4.2.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_GET_API_VERSION, _CREATE_VM = 0xAE00, 0xAE01
_VERSION = 12  # the only one there has been since Linux 2.6.22


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
