"""Values written as TOML, which the standard library only reads. Source: TOML 1.0."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(table: Mapping[str, object]) -> str:
    """A table as a document: a table's own keys first, then the tables in it.

    Raises:
        ValueError: Something in it is no value of TOML's.
    """
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Mapping[str, object], at: tuple[str, ...]) -> Iterator[str]:
    tables = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    values = {name: value for name, value in table.items() if name not in tables}
    if at and (values or not tables):
        yield ""
        yield f"[{'.'.join(map(_key, at))}]"
    for name, value in values.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, inner in tables.items():
        yield from _lines(inner, (*at, name))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    match value:
        case bool() | str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case int() | float():
            return repr(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{_key(name)} = {_value(inner)}' for name, inner in value.items())}}}"
        case _:
            raise ValueError(f"{value!r} is no value of TOML's")
