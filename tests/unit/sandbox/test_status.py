from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kata_py.config.errors import ConfigurationError
from kata_py.hypervisor.api import HypervisorError
from kata_py.oci.errors import SpecError
from kata_py.sandbox import errors
from kata_py.shim.errors import UsageError
from kata_py.shim.status import answered, code_of
from kata_py.storage.errors import StorageError, UnsupportedMount
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def stage(cause: Exception) -> Exception:
    return caused(errors.StageFailed("share", str(cause), elapsed=1.0, budget=None), cause)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument("x"), Code.INVALID_ARGUMENT),
        (errors.NotFound("x"), Code.NOT_FOUND),
        (errors.AlreadyExists("x"), Code.ALREADY_EXISTS),
        (errors.FailedPrecondition("x"), Code.FAILED_PRECONDITION),
        (errors.Unimplemented("x"), Code.UNIMPLEMENTED),
        (errors.Unavailable("x"), Code.UNAVAILABLE),
        (errors.DeadlineExceeded("x"), Code.DEADLINE_EXCEEDED),
        (errors.SandboxError("x"), Code.UNKNOWN),
        (SpecError("x"), Code.INVALID_ARGUMENT),
        (ConfigurationError("x", file=Path("/etc/x")), Code.INVALID_ARGUMENT),
        (UsageError("x"), Code.INVALID_ARGUMENT),
        (UnsupportedMount("x"), Code.UNIMPLEMENTED),
        (StorageError("x"), Code.FAILED_PRECONDITION),
        (caused(StorageError("x"), OSError(errno.ENOSPC, "full")), Code.RESOURCE_EXHAUSTED),
        (caused(HypervisorError("qemu", "x"), OSError(errno.ENOSPC, "full")), Code.RESOURCE_EXHAUSTED),
        (OSError(errno.ENOSPC, "full"), Code.RESOURCE_EXHAUSTED),
        (PermissionError(errno.EPERM, "not root"), Code.PERMISSION_DENIED),
        (OSError(errno.EIO, "broken"), Code.UNKNOWN),
        (stage(HypervisorError("qemu", "gone")), Code.UNKNOWN),
        (stage(UnsupportedMount("x")), Code.UNIMPLEMENTED),
        (stage(OSError(errno.ENOSPC, "full")), Code.RESOURCE_EXHAUSTED),
        (stage(errors.NotFound("a file in the guest")), Code.UNKNOWN),
        (StatusError(Code.ABORTED, "x"), Code.ABORTED),
        (ZeroDivisionError(), Code.UNKNOWN),
    ],
)
def test_every_meaning_has_its_code(error: Exception, code: Code) -> None:
    assert code_of(error) is code


async def test_what_nobody_expected_is_logged_in_full_and_named(caplog: pytest.LogCaptureFixture) -> None:
    @answered
    async def State() -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(StatusError, match="UNKNOWN: State: ZeroDivisionError: by zero"):
        await State()
    assert "Traceback" in caplog.text


async def test_what_was_expected_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    @answered
    async def Create() -> None:
        raise errors.StageFailed("agent", "no answer", elapsed=45.0, budget=45.0, evidence=("a", "b"))

    with pytest.raises(StatusError) as caught:
        await Create()
    assert caught.value.message == "agent failed after 45.0 s of 45 s: no answer; last lines: a | b"
    assert "Traceback" not in caplog.text
