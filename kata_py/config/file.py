"""A TOML file as flat settings, each of which can say where it stands."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kata_py.config.errors import ConfigurationError

# A key's full name: `("hypervisor", "qemu", "default_memory")`.
Key = tuple[str, ...]

DEPTH_MAX = 32  # names in a key; the deepest that is known has four

_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_NAME = rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*"
_TABLE = re.compile(rf"\s*\[\[?{_NAME}\]")
_ENTRY = re.compile(rf"{_NAME}=")


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read.

    Attributes:
        path: Where it is.
        text: What it says.
    """

    path: Path
    text: str

    def line(self, key: Key) -> int | None:
        """The line where a key, or a table, is first given something; None if the text hides it.

        The parser keeps no lines, so the text is searched: only for an error.
        """
        table: Key = ()
        around = None  # an inline table that holds the key
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _TABLE.match(line):
                here = table = _parts(header[1])
            elif entry := _ENTRY.match(line):
                here = table + _parts(entry[1])
                if key[: len(here)] == here:
                    around = number
            else:
                continue
            if here[: len(key)] == key:
                return number
        return around


class Setting(NamedTuple):
    """A value, and the file it was last given in."""

    value: object
    file: File


def read(path: Path) -> dict[Key, Setting]:
    """Read a file into its settings, as `parse`.

    Raises:
        ConfigurationError: It is missing, unreadable or no TOML.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {os.strerror(error.errno or 0)}", file=path) from error
    return parse(content, path)


def parse(content: bytes, path: Path) -> dict[Key, Setting]:
    """The settings in a text; an empty table is a setting too, so that it can be found wrong.

    Args:
        content: The text.
        path: Where it comes from, for errors.

    Raises:
        ConfigurationError: It is no TOML, or has tables in tables beyond `DEPTH_MAX`.
    """
    try:
        text = content.decode()
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, not UTF-8, a number of thousands of digits
        raise ConfigurationError(f"not TOML: {error}", file=path) from error
    file = File(path, text)
    return {key: Setting(value, file) for key, value in _leaves(data, (), path)}


def _leaves(table: dict[str, object], prefix: Key, path: Path) -> Iterator[tuple[Key, object]]:
    if len(prefix) >= DEPTH_MAX:  # a dotted name nests without end where brackets would not
        raise ConfigurationError(
            f"a key has more than {DEPTH_MAX} names, from {'.'.join(prefix[:3])[:60]} on", file=path
        )
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*prefix, name), path)
        else:
            yield (*prefix, name), value


def _parts(name: str) -> Key:
    return tuple(part.strip("\"'") for part in re.findall(_PART, name))
