"""From a table's settings to the values of a frozen dataclass, held against the types of its fields."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from kata_py.config.errors import ConfigurationError
from kata_py.config.file import Key, Setting
from kata_py.config.upstream import NOT_HONOURED, PENDING

_T = TypeVar("_T")

# Takes what is wrong. One that raises it ends the work there; after one that does not, the next fault is looked for.
Report = Callable[[ConfigurationError], object]

_NAMES: dict[object, str] = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def raised(error: ConfigurationError) -> None:
    """A `Report` for which the first fault is one too many."""
    raise error


def bind(shape: type[_T], table: Key, entries: Mapping[str, Setting], report: Report = raised, **fixed: object) -> _T:
    """Make a table's dataclass: a field for each key.

    Args:
        shape: The dataclass.
        table: The table's name.
        entries: What it says, by key.
        report: Takes what is wrong: a key is unknown, not honoured yet, or has a value of the wrong type. Its
            default counts then.
        **fixed: Fields that are no keys.

    Raises:
        ConfigurationError: What `report` raises.
    """
    hints = {key: hint for key, hint in types_of(shape).items() if key not in fixed}
    values: dict[str, object] = {}
    for name, setting in entries.items():
        try:
            if name in hints:
                values[name] = _value(shape, table, name, setting, hints[name])
            else:
                _refuse(table, name, setting, hints)
        except ConfigurationError as error:
            report(error)
    return shape(**values, **fixed)


def refuse_all(table: Key, entries: Mapping[str, Setting], report: Report = raised) -> None:
    """Go through a table of which nothing is honoured.

    Args:
        table: The table's name.
        entries: What it says, by key.
        report: Takes what is wrong: a key asks for something, or is unknown.

    Raises:
        ConfigurationError: What `report` raises.
    """
    for name, setting in entries.items():
        try:
            _refuse(table, name, setting, ())
        except ConfigurationError as error:
            report(error)


def _value(shape: type, table: Key, name: str, setting: Setting, hint: Any) -> object:
    try:
        value = converted(setting.value, hint)
    except ValueError:
        cause = f"{name} in [{'.'.join(table)}] must be {described(hint)}, not {excerpt(setting.value)}"
        raise fault((*table, *name.split(".")), setting, cause) from None
    if refusal := pending(shape, section(table), name, value):
        raise _not_honoured(table, name, setting, refusal)
    return value


def fault(key: Key, setting: Setting, cause: str, hint: str = "") -> ConfigurationError:
    """The error for a setting, with its file and line."""
    return ConfigurationError(cause, file=setting.file.path, line=setting.file.line(key), hint=hint, key=".".join(key))


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that is spelt most like one that is not."""
    import difflib  # for an error only

    return difflib.get_close_matches(name, list(valid), n=1, cutoff=0)[0]


def section(table: Key) -> str:
    """The table's name in `kata_py.config.upstream`."""
    return "hypervisor" if table[0] == "hypervisor" else ".".join(table)


def types_of(shape: type) -> dict[str, Any]:
    """The types of a dataclass's fields, bounds included."""
    return get_type_hints(shape, include_extras=True)


def pending(shape: type, section: str, name: str, value: object) -> str:
    """Why a key of the model cannot have a value yet: what is accepted so far. Empty if it can.

    Args:
        shape: The dataclass that has the key.
        section: Its table, as `section` tells.
        name: The key.
        value: What `converted` made of the value.
    """
    if name not in PENDING.get(section, {}):
        return ""
    [field] = [field for field in fields(shape) if field.name == name]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    others = PENDING[section][name]
    return "" if others is None else _unless_accepted(value, (default, *others))


def foreign(section: str, name: str, value: object) -> str:
    """As `pending`, for a key of upstream's that the model has not."""
    accepted = NOT_HONOURED[section][name]
    return "" if accepted is None else _unless_accepted(value, accepted)


def converted(value: object, hint: Any) -> object:
    """A value as its field's type has it.

    Raises:
        ValueError: It is none of that type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bare = converted(value, args[0])
        if args[1].accepts(bare):
            return bare
    elif origin is Literal:
        if value in args and isinstance(value, str):
            return value
    elif origin is types.UnionType:  # `X | None`, written as ""
        return None if value == "" else converted(value, args[0])
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(converted(item, args[0]) for item in value)
    elif hint is Path:
        if isinstance(value, str) and value.startswith("/") and "\0" not in value:
            return Path(value)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    raise ValueError


def described(hint: Any) -> str:
    """A field's type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_NAMES[args[0]]} {args[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(excerpt, args))}"
    if origin is types.UnionType:
        return f'{described(args[0])} or ""'
    if origin is tuple:
        return f"a list of strings {get_args(args[0])[1]}" if get_origin(args[0]) is Annotated else "a list of strings"
    return "an absolute path" if hint is Path else _NAMES[hint]


def excerpt(value: object, limit: int | None = 60) -> str:
    """A value as TOML writes it, cut short to so many characters."""
    text = '""' if value is None else json.dumps(value, default=str, ensure_ascii=False)
    return text if limit is None or len(text) <= limit else f"{text[: limit - 3]}..."


def _refuse(table: Key, name: str, setting: Setting, honoured: Iterable[str]) -> None:
    """Raise, unless the key is one of upstream's that changes nothing here."""
    known = NOT_HONOURED[section(table)]
    if name not in known:
        hint = f"the nearest valid key is {nearest(name, [*honoured, *known])}"
        raise fault((*table, *name.split(".")), setting, f"unknown key {name} in [{'.'.join(table)}]", hint)
    if refusal := foreign(section(table), name, setting.value):
        raise _not_honoured(table, name, setting, refusal)


def _not_honoured(table: Key, name: str, setting: Setting, hint: str) -> ConfigurationError:
    cause = f"{name} = {excerpt(setting.value)} in [{'.'.join(table)}] is not honoured yet"
    return fault((*table, *name.split(".")), setting, cause, hint)


def _unless_accepted(value: object, accepted: Iterable[object]) -> str:
    if any(type(one) is type(value) and one == value for one in accepted):
        return ""
    return f"accepted so far: {' or '.join(map(excerpt, accepted))}"
