"""What libvirt's refusals mean for whoever wants a machine.

Source: libvirt `include/libvirt/virterror.h`. Many causes have no code of their own and come as internal or system
errors: these are told by libvirt's words.
"""

from __future__ import annotations

import re

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import binding

_BY_CODE = {
    "VIR_ERR_NO_MEMORY": Fault.CAPACITY,
    "VIR_ERR_NO_CONNECT": Fault.TRANSIENT,
    "VIR_ERR_INVALID_CONN": Fault.TRANSIENT,
    "VIR_ERR_RPC": Fault.TRANSIENT,
    "VIR_ERR_SYSTEM_ERROR": Fault.TRANSIENT,
    "VIR_ERR_INTERNAL_ERROR": Fault.TRANSIENT,
    "VIR_ERR_OPERATION_TIMEOUT": Fault.TRANSIENT,
    "VIR_ERR_OPERATION_ABORTED": Fault.TRANSIENT,
    "VIR_ERR_OPERATION_FAILED": Fault.TRANSIENT,
    "VIR_ERR_RESOURCE_BUSY": Fault.TRANSIENT,
}  # what is not here needs a person

_BY_WORDS = (
    (re.compile(r"No space left on device|Disk quota exceeded|not enough (free )?space", re.I), Fault.QUOTA),
    (re.compile(r"Cannot allocate memory|cannot set up guest memory", re.I), Fault.CAPACITY),
    (re.compile(r"KVM is not available|KVM kernel module|'?kvm'? is not supported|invalid accelerator kvm", re.I),
     Fault.FATAL),
    (re.compile(r"Permission denied|Host key verification failed|authentication failed", re.I), Fault.FATAL),
    (re.compile(r"firmware|master var store", re.I), Fault.FATAL),
)  # fmt: skip

_HINTS = (
    (re.compile(r"\bkvm\b", re.I), "set LIBVIRT_DOMAIN_TYPE=qemu to emulate"),
    (re.compile(r"firmware|master var store", re.I), "set LIBVIRT_EFI_FIRMWARE to one the host has, or to nothing"),
    (re.compile(r"no space left|quota exceeded|not enough (free )?space", re.I), "make room in the pool LIBVIRT_POOL"),
    (re.compile(r"^Cannot (recv|write) data|Host key verification", re.I), "see LIBVIRT_URI and the key for its host"),
)
_HINTS_BY_CODE = {
    "VIR_ERR_NO_STORAGE_POOL": "set LIBVIRT_POOL to a pool of the host",
    "VIR_ERR_NO_STORAGE_VOL": "set LIBVIRT_VOL_NAME to a volume of the pool, or upload the image",
    "VIR_ERR_NO_NETWORK": "set LIBVIRT_NET to a network of the host",
    "VIR_ERR_AUTH_FAILED": "see LIBVIRT_URI and the key for its host",
    "VIR_ERR_NO_CONNECT": "see LIBVIRT_URI",
}
_LOST = re.compile(r"client socket is closed|keepalive timeout|End of file while reading|Connection reset|Broken pipe")


def explain(error: Exception, what: str) -> ProviderError:
    """A refusal as the provider's error.

    Args:
        error: A `binding.Refused`.
        what: What was asked for, as `start machine podvm-web-0a1b2c3d`.
    """
    code, _, message = binding.failure(error)
    fault = next((fault for words, fault in _BY_WORDS if words.search(message)), _BY_CODE.get(code, Fault.FATAL))
    hint = _HINTS_BY_CODE.get(code) or next((hint for words, hint in _HINTS if words.search(message)), "")
    return ProviderError(fault, f"libvirt: {what}: {message}", code=code, hint=hint)


def is_lost(error: Exception) -> bool:
    """Whether a refusal says that the connection is broken."""
    code, source, message = binding.failure(error)
    return code in ("VIR_ERR_INVALID_CONN", "VIR_ERR_NO_CONNECT") or (
        bool(_LOST.search(message)) or (source == binding.FROM_RPC and code == "VIR_ERR_SYSTEM_ERROR")
    )
