"""The one place where what went wrong becomes a status that the manager understands."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from kata_py.config.errors import ConfigurationError
from kata_py.hypervisor.api import HypervisorError
from kata_py.oci.errors import SpecError
from kata_py.sandbox import errors
from kata_py.shim.errors import ShimError, UsageError
from kata_py.storage.errors import StorageError, UnsupportedMount
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")

# The first class that fits counts.
_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (errors.InvalidArgument, Code.INVALID_ARGUMENT),
    (errors.NotFound, Code.NOT_FOUND),
    (errors.AlreadyExists, Code.ALREADY_EXISTS),
    (errors.FailedPrecondition, Code.FAILED_PRECONDITION),
    (errors.Unimplemented, Code.UNIMPLEMENTED),
    (errors.Unavailable, Code.UNAVAILABLE),
    (errors.DeadlineExceeded, Code.DEADLINE_EXCEEDED),
    (UnsupportedMount, Code.UNIMPLEMENTED),
    (StorageError, Code.FAILED_PRECONDITION),
    (SpecError, Code.INVALID_ARGUMENT),
    (ConfigurationError, Code.INVALID_ARGUMENT),
    (UsageError, Code.INVALID_ARGUMENT),
)
_OS_CODES = {
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
    errno.EDQUOT: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
}
# A manager takes these two for news of its task; inside a stage they speak of something else.
_ABOUT_TASKS = frozenset({Code.NOT_FOUND, Code.ALREADY_EXISTS})
# What a manager may well ask and be refused; the rest is worth an error in the log.
_REFUSALS = _ABOUT_TASKS | {Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED}

_EXPECTED = (errors.SandboxError, HypervisorError, StorageError, SpecError, ConfigurationError, ShimError, OSError)


def code_of(error: BaseException | None) -> Code:
    """The status code that says best what an error means; `UNKNOWN` where none does."""
    if isinstance(error, StatusError):
        return error.code
    if isinstance(error, OSError):
        return _OS_CODES.get(error.errno or 0, Code.UNKNOWN)
    if isinstance(error, errors.StageFailed):
        code = code_of(error.__cause__)
        return Code.UNKNOWN if code in _ABOUT_TASKS else code
    if isinstance(error, StorageError | HypervisorError) and code_of(error.__cause__) is not Code.UNKNOWN:
        return code_of(error.__cause__)
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNKNOWN)


def answered(handler: Callable[_P, Awaitable[_R]]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Let a handler raise what it meets; its caller gets a status. What nobody expected is logged in full."""

    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(*args, **kwargs)
        except StatusError:
            raise
        except _EXPECTED as error:
            code = code_of(error)
            level = logging.INFO if code in _REFUSALS else logging.ERROR
            logger.log(level, "%s: %s", handler.__name__, error, exc_info=logger.isEnabledFor(logging.DEBUG))
            raise StatusError(code, str(error)) from error
        except Exception as error:
            logger.exception("%s: not expected", handler.__name__)
            raise StatusError(Code.UNKNOWN, f"{handler.__name__}: {type(error).__name__}: {error}") from error

    return answer
