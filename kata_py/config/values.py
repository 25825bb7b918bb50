"""What a key's value may be, beyond its type: bounds that the fields of the model carry in `Annotated`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Protocol


class Bound(Protocol):
    """What a value of the right type must fulfil besides; its `str()` completes "a whole number", "a string"."""

    def accepts(self, value: object) -> bool:
        """Whether it does."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, both ends included."""

    low: float
    high: float = float("inf")

    def accepts(self, value: object) -> bool:
        """As `Bound.accepts`."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"of at least {self.low:g}" if self.high == float("inf") else f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """A number that is 0 or a power of two within the range."""

    low: int
    high: int

    def accepts(self, value: object) -> bool:
        """As `Bound.accepts`."""
        return value == 0 or (
            isinstance(value, int) and self.low <= value <= self.high and value & (value - 1) == 0
        )  # fmt: skip

    def __str__(self) -> str:
        return f"that is 0 or a power of two from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Form:
    """What a string must look like: an expression that fits the whole of it, and the same in words."""

    expression: str
    words: str

    def accepts(self, value: object) -> bool:
        """As `Bound.accepts`."""
        return isinstance(value, str) and re.fullmatch(self.expression, value) is not None

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class RegularExpression:
    """A string that is a regular expression itself."""

    def accepts(self, value: object) -> bool:
        """As `Bound.accepts`."""
        try:
            re.compile(str(value))
        except (re.error, RecursionError, OverflowError):
            return False
        return True

    def __str__(self) -> str:
        return "that are regular expressions"


Seconds = Annotated[int, Range(1, 86_400)]
SecondsOrUnset = Annotated[int, Range(0, 86_400)]  # 0 is unset
Mebibytes = Annotated[int, Range(0)]
BitsPerSecond = Annotated[int, Range(0)]
SectorSize = Annotated[int, PowerOfTwo(512, 65_536)]
Expressions = tuple[Annotated[str, RegularExpression()], ...]

# Source: QEMU `qemu-options.hx`, -sandbox.
SeccompSandbox = Annotated[
    str,
    Form(
        r"|(on|off)(,((obsolete|spawn|resourcecontrol)=(allow|deny)|elevateprivileges=(allow|deny|children)))*",
        'as QEMU\'s -sandbox takes it, such as "on,obsolete=deny,elevateprivileges=deny,spawn=deny"',
    ),
]
# What modprobe(8) is given. A name that begins with a hyphen would be an option.
Modules = tuple[
    Annotated[str, Form(r"\w[\w-]*( +[\w.-]+(=[^\s\x00-\x1f]*)?)*", "of a module's name and parameters")], ...
]
Globs = tuple[Annotated[str, Form(r"|/[^\x00-\x1f]*", "that are absolute paths, with wildcards or not")], ...]
BindMounts = tuple[Annotated[str, Form(r"/[^\x00-\x1f]*", "that are absolute paths, perhaps with :ro or :rw")], ...]
