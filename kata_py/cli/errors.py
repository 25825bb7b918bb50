"""What `kata-ctl` can fail with.

CtlError
└── ShimError     the sandbox's shim cannot be reached, or answered with an error
"""

from __future__ import annotations


class CtlError(Exception):
    """A command cannot do what it was asked.

    Attributes:
        cause: What happened, in words.
        hint: What to do next; may be empty.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


class ShimError(CtlError):
    """The shim cannot be reached, or answered with an error.

    Attributes:
        status: The HTTP status of its answer; 0 without one.
    """

    def __init__(self, cause: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(cause, hint)
        self.status = status
