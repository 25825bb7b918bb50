"""Command lines in the form of Go's package `flag`: `-x v`, `-x=v`, `--x v`, `--x=v`; a boolean needs no value."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kata_caa.errors import SettingError

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def truth(flag: str, text: str) -> bool:
    """What a boolean flag's value means.

    Raises:
        SettingError: It is none.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise SettingError(f"-{flag}: {text!r:.100} is neither true nor false")


def parse(
    arguments: Sequence[str], flags: Collection[str], booleans: Collection[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The values of each flag, in order, and what follows the flags.

    Args:
        arguments: Without the program's name.
        flags: All flags that there are, booleans among them.
        booleans: Those that may stand alone.

    Raises:
        SettingError: A flag is unknown, or lacks its value; names it.
    """
    values: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if name not in flags:
            raise SettingError(f"flag provided but not defined: -{name}")
        if not equals:
            if name in booleans:
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise SettingError(f"flag needs an argument: -{name}")
        values.setdefault(name, []).append(value)
    return values, rest
