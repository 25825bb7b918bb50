"""Flags and environment variables, declared once as the fields of a frozen dataclass.

A field made by `setting` has a flag, an environment variable, a default and a meaning; from these come the parser,
the precedence (flag, then a non-empty variable, then the default) and the tables of the documents. The oddities of
upstream's parsing are kept: see `load`. Source: cloud-api-adaptor `src/cloud-providers/util.go`, Go's package `flag`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NewType, TypeVar, get_type_hints

from kata_caa.errors import SettingError
from kata_caa.flags import truth

T = TypeVar("T")

Duration = NewType("Duration", float)
"""Seconds, written in Go's form: `5m`, `1h30m`, `250ms`."""

_METADATA = "kata_caa.setting"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a field is set.

    Attributes:
        flag: Without dashes; empty has none.
        environment: The variable; empty has none.
        meaning: For people.
        secret: Whether its value is never shown.
    """

    flag: str
    environment: str
    meaning: str
    secret: bool = False


def setting(default: Any, flag: str, environment: str, meaning: str, *, secret: bool = False) -> Any:
    """A field of a dataclass of settings; its type is str, int, bool, float, Duration, tuple[str, ...] or dict-like
    `tuple[tuple[str, str], ...]`."""
    return dataclasses.field(
        default=default, repr=not secret, metadata={_METADATA: Setting(flag, environment, meaning, secret)}
    )


def settings_of(config: type) -> Iterator[tuple[dataclasses.Field[Any], Setting]]:
    """The fields of a dataclass that can be set, with how."""
    for field in dataclasses.fields(config):
        if found := field.metadata.get(_METADATA):
            yield field, found


def load(config: type[T], arguments: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> T:
    """Make a configuration of flags and environment.

    As upstream has it: an empty variable is none; a boolean variable is true for `1` and `true` in any case, and
    false for anything else; a bad number or duration in a variable keeps the default; a list or map from the
    environment is *appended to* by its flag. A bad value of a flag is an error.

    Args:
        config: A dataclass whose fields were made by `setting`.
        arguments: The values of each flag that was given, in order.
        environ: The environment.

    Raises:
        SettingError: A flag's value does not fit its type.
    """
    values: dict[str, Any] = {}
    types = get_type_hints(config)
    for field, how in settings_of(config):
        kind = types[field.name]
        value = field.default
        if text := environ.get(how.environment, "") if how.environment else "":
            value = _from_environment(kind, text, field.default)
        for text in arguments.get(how.flag, ()) if how.flag else ():
            value = _from_flag(kind, how.flag, text, value, is_default=value is field.default)
        values[field.name] = value
    return config(**values)


def digest(config: object) -> str:
    """Tells configurations apart, but for what is secret in them."""
    assert dataclasses.is_dataclass(config)
    values = {
        field.name: repr(getattr(config, field.name)) for field, how in settings_of(type(config)) if not how.secret
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def duration(text: str) -> Duration:
    """Seconds of a duration in Go's form; `0` needs no unit.

    Raises:
        ValueError: It has another form.
    """
    if text in ("0", "+0", "-0"):
        return Duration(0.0)
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = list(_PART.finditer(rest))
    if not parts or "".join(part[0] for part in parts) != rest:
        raise ValueError(f"{text!r} is no duration such as 5m or 1h30m")
    return Duration(sign * sum(float(part[1]) * _UNITS[part[2]] for part in parts))


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`k=v,k=v` as pairs.

    Raises:
        ValueError: An element has no `=`.
    """
    found = []
    for element in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = element.partition("=")
        if not separator or not key:
            raise ValueError(f"{element!r} is not KEY=VALUE")
        found.append((key, value))
    return tuple(found)


def words(text: str) -> tuple[str, ...]:
    """`a,b,c` as a tuple, without blanks and empty elements."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


_PARSERS: Mapping[object, Callable[[str], object]] = {
    str: str,
    int: lambda text: int(text, 0),
    float: float,
    Duration: duration,
    tuple[str, ...]: words,
    tuple[tuple[str, str], ...]: pairs,
}
_LISTS = (tuple[str, ...], tuple[tuple[str, str], ...])


def _from_environment(kind: object, text: str, default: object) -> object:
    if kind is bool:
        return text.lower() in ("1", "true")
    try:
        return _PARSERS[kind](text)
    except ValueError:
        return default


def _from_flag(kind: object, flag: str, text: str, before: Any, *, is_default: bool) -> object:
    if kind is bool:
        return truth(flag, text)
    try:
        value = _PARSERS[kind](text)
    except ValueError as error:
        raise SettingError(f"-{flag}: {error}") from error
    if kind in _LISTS and not is_default:
        assert isinstance(value, tuple)
        return (*before, *value)
    return value
