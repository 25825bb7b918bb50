"""What libvirt's refusals mean."""

from __future__ import annotations

import libvirt
import pytest

from kata_caa.errors import Fault
from kata_caa.providers.libvirt.fault import explain, is_lost


def refusal(code: str, message: str, source: str = "VIR_FROM_QEMU") -> Exception:
    error = libvirt.libvirtError(message)
    error.err = (getattr(libvirt, code), getattr(libvirt, source), message, 2, None, None, None, -1, -1)
    error.args = (message,)
    return error


@pytest.mark.parametrize(
    ("code", "message", "fault", "hint"),
    [
        ("VIR_ERR_NO_STORAGE_VOL", "Storage volume not found", Fault.FATAL, "LIBVIRT_VOL_NAME"),
        ("VIR_ERR_NO_STORAGE_POOL", "Storage pool not found", Fault.FATAL, "LIBVIRT_POOL"),
        ("VIR_ERR_NO_NETWORK", "Network not found", Fault.FATAL, "LIBVIRT_NET"),
        ("VIR_ERR_SYSTEM_ERROR", "cannot write: No space left on device", Fault.QUOTA, "LIBVIRT_POOL"),
        ("VIR_ERR_INTERNAL_ERROR", "cannot set up guest memory 'pc.ram'", Fault.CAPACITY, ""),
        ("VIR_ERR_NO_MEMORY", "out of memory", Fault.CAPACITY, ""),
        ("VIR_ERR_INTERNAL_ERROR", "invalid accelerator kvm", Fault.FATAL, "LIBVIRT_DOMAIN_TYPE"),
        ("VIR_ERR_SYSTEM_ERROR", "Cannot recv data: Host key verification failed.", Fault.FATAL, "LIBVIRT_URI"),
        ("VIR_ERR_SYSTEM_ERROR", "unable to connect to server: Connection refused", Fault.TRANSIENT, ""),
        ("VIR_ERR_INTERNAL_ERROR", "client socket is closed", Fault.TRANSIENT, ""),
        ("VIR_ERR_INTERNAL_ERROR", "pool 'default' has asynchronous jobs running.", Fault.TRANSIENT, ""),
        ("VIR_ERR_OPERATION_FAILED", "Unable to find any master var store for loader", Fault.FATAL, "EFI_FIRMWARE"),
        ("VIR_ERR_XML_ERROR", "malformed", Fault.FATAL, ""),
    ],
)
def test_a_refusal_has_its_kind_its_code_and_what_to_do(code, message, fault, hint):
    error = explain(refusal(code, message), "start machine web")
    assert (error.fault, error.code) == (fault, code)
    assert error.cause == f"libvirt: start machine web: {message}"
    assert hint in error.hint


def test_only_a_broken_connection_counts_as_lost():
    assert is_lost(refusal("VIR_ERR_INTERNAL_ERROR", "client socket is closed"))
    assert is_lost(refusal("VIR_ERR_SYSTEM_ERROR", "Cannot write data: Broken pipe", "VIR_FROM_RPC"))
    assert is_lost(refusal("VIR_ERR_SYSTEM_ERROR", "unable to connect", "VIR_FROM_RPC"))
    assert not is_lost(refusal("VIR_ERR_SYSTEM_ERROR", "cannot open file", "VIR_FROM_STORAGE"))
    assert not is_lost(refusal("VIR_ERR_NO_DOMAIN", "Domain not found"))
