"""What installing can fail with.

InstallError
├── NotImportedError    the manager would not read the drop-in
├── EditedError         somebody else has changed a file of ours since
└── InUseError          sandboxes run from what is to be removed
"""

from __future__ import annotations


class InstallError(Exception):
    """Something cannot be installed, or taken away again.

    Attributes:
        cause: What stands in the way, in words.
        hint: What to do next; may be empty.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


class NotImportedError(InstallError):
    """The manager's own file does not lead to the drop-in, and is not ours to change."""


class EditedError(InstallError):
    """What is there is neither what was written nor what was there before."""


class InUseError(InstallError):
    """Sandboxes run from what is to be removed."""
