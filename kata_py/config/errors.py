"""What can be wrong with a configuration."""

from __future__ import annotations

from pathlib import Path


class ConfigurationError(Exception):
    """A configuration that cannot be found, read or honoured.

    The text is `FILE:LINE: CAUSE; HINT`, as much of it as is known.

    Attributes:
        cause: What is wrong, in words, with the key and its table.
        file: The file at fault, a drop-in perhaps.
        line: The line in it.
        hint: What to do about it.
        key: The key's full name, where one is to be blamed.
    """

    def __init__(
        self, cause: str, *, file: Path | None = None, line: int | None = None, hint: str = "", key: str = ""
    ) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(f"{place}{cause}{hint and f'; {hint}'}")
        self.cause = cause
        self.file = file
        self.line = line
        self.hint = hint
        self.key = key


class NoConfiguration(ConfigurationError):
    """Nobody named a file, and there is none in the places where it is looked for."""
