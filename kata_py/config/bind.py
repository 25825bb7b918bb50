"""From a table's settings to the values of a frozen dataclass, held against the types of its fields."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from kata_py.config.errors import ConfigurationError
from kata_py.config.file import Key, Setting
from kata_py.config.upstream import NOT_HONOURED

_T = TypeVar("_T")

_NAMES: dict[object, str] = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def bind(shape: type[_T], table: Key, entries: Mapping[str, Setting], **fixed: object) -> _T:
    """Make a table's dataclass: a field for each key.

    Args:
        shape: The dataclass.
        table: The table's name.
        entries: What it says, by key.
        fixed: Fields that are no keys.

    Raises:
        ConfigurationError: A key is unknown, not honoured yet, or has a value of the wrong type.
    """
    hints = {key: hint for key, hint in get_type_hints(shape, include_extras=True).items() if key not in fixed}
    values: dict[str, object] = {}
    for name, setting in entries.items():
        if name not in hints:
            _refuse(table, name, setting, hints)
            continue
        try:
            values[name] = _converted(setting.value, hints[name])
        except ValueError:
            cause = f"{name} in [{'.'.join(table)}] must be {_described(hints[name])}, not {_excerpt(setting.value)}"
            raise fault((*table, *name.split(".")), setting, cause) from None
    return shape(**values, **fixed)


def refuse_all(table: Key, entries: Mapping[str, Setting]) -> None:
    """Go through a table of which nothing is honoured.

    Raises:
        ConfigurationError: A key asks for something, or is unknown.
    """
    for name, setting in entries.items():
        _refuse(table, name, setting, ())


def fault(key: Key, setting: Setting, cause: str, hint: str = "") -> ConfigurationError:
    """The error for a setting, with its file and line."""
    return ConfigurationError(cause, file=setting.file.path, line=setting.file.line(key), hint=hint)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that is spelt most like one that is not."""
    import difflib  # for an error only

    return difflib.get_close_matches(name, list(valid), n=1, cutoff=0)[0]


def _refuse(table: Key, name: str, setting: Setting, honoured: Iterable[str]) -> None:
    """Raise, unless the key is one of upstream's that changes nothing here."""
    where = f"[{'.'.join(table)}]"
    known = NOT_HONOURED["hypervisor" if table[0] == "hypervisor" else ".".join(table)]
    if name not in known:
        hint = f"the nearest valid key is {nearest(name, [*honoured, *known])}"
        raise fault((*table, *name.split(".")), setting, f"unknown key {name} in {where}", hint)
    accepted = known[name]
    if accepted is None or any(type(value) is type(setting.value) and value == setting.value for value in accepted):
        return
    hint = f"accepted so far: {' or '.join(map(_excerpt, accepted))}"
    raise fault(
        (*table, *name.split(".")), setting, f"{name} = {_excerpt(setting.value)} in {where} is not honoured yet", hint
    )


def _converted(value: object, hint: Any) -> object:
    """A value as its field's type has it. Raises ValueError if it is none of that type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number = _converted(value, args[0])
        if isinstance(number, (int, float)) and args[1].low <= number <= args[1].high:
            return number
    elif origin is Literal:
        if value in args and isinstance(value, str):
            return value
    elif origin is types.UnionType:  # `X | None`, written as ""
        return None if value == "" else _converted(value, args[0])
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_converted(item, args[0]) for item in value)
    elif hint is Path:
        if isinstance(value, str) and value.startswith("/"):
            return Path(value)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    raise ValueError


def _described(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_NAMES[args[0]]} {args[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(_excerpt, args))}"
    if origin is types.UnionType:
        return f'{_described(args[0])} or ""'
    if origin is tuple:
        return "a list of strings"
    return "an absolute path" if hint is Path else _NAMES[hint]


def _excerpt(value: object) -> str:
    """A value as TOML writes it, cut short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
