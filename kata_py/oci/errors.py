"""What can be wrong with an OCI document."""

from __future__ import annotations


class SpecError(Exception):
    """A document that cannot be read, has the wrong shape, or does not fit the wire.

    The text says where: the file, or what else the document came in; line and column if it is no JSON; the path
    inside the document (`process.args[2]`) if a value is wrong.

    Attributes:
        source: The file or the request the document came in; empty if unknown.
        path: The path of the value at fault; empty for the document itself.
        cause: What is wrong, in words.
    """

    def __init__(self, cause: str, *, source: str = "", path: str = "") -> None:
        super().__init__(": ".join(part for part in (source, path, cause) if part))
        self.source = source
        self.path = path
        self.cause = cause
