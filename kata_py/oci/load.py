"""Reading OCI documents: JSON in, typed values out, or an error that says where the fault is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints, is_typeddict

from kata_py.oci.errors import SpecError
from kata_py.oci.spec import LinuxResources, Process, Spec

_Document = TypeVar("_Document", bound=Mapping[str, object])

_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}

_hints = cache(get_type_hints)


def load_spec(bundle: Path) -> Spec:
    """Read the `config.json` of a bundle.

    Raises:
        SpecError: It is missing, cannot be read, is no JSON, or has the wrong shape.
    """
    file = bundle / "config.json"
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        what = "config.json is missing" if bundle.is_dir() else "there is no such directory"
        raise SpecError(f"{what}; a bundle holds the container's config.json", source=str(bundle)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", source=str(file)) from error
    return _parse(text, Spec, str(file))


def parse_process(text: bytes, *, source: str = "process") -> Process:
    """Read a process alone, as in the Task service's Exec.

    Args:
        text: The JSON.
        source: Where it came from, for the error.

    Raises:
        SpecError: It is no JSON, or has the wrong shape.
    """
    return _parse(text, Process, source)


def parse_resources(text: bytes, *, source: str = "resources") -> LinuxResources:
    """Read resources alone, as in the Task service's Update.

    Args:
        text: The JSON.
        source: Where it came from, for the error.

    Raises:
        SpecError: It is no JSON, or has the wrong shape.
    """
    return _parse(text, LinuxResources, source)


def _parse(text: bytes, shape: type[_Document], source: str) -> _Document:
    try:
        document = json.loads(text.decode(), object_pairs_hook=_without_null)
    except json.JSONDecodeError as error:
        raise SpecError(f"not JSON: {error.msg}", source=f"{source}:{error.lineno}:{error.colno}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"not JSON: byte {error.start} is no UTF-8", source=source) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise SpecError(f"not JSON that can be read: {error}", source=source) from None
    try:
        _check(document, shape, "")
    except SpecError as error:
        raise SpecError(error.cause, source=source, path=error.path) from None
    return cast(_Document, document)


def _without_null(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Managers written in Go say null for what is not there."""
    return {key: value for key, value in pairs if value is not None}


def _check(value: object, shape: Any, path: str) -> None:
    """Hold a value against a type; a key the type does not know may hold anything."""
    container: type = dict if is_typeddict(shape) else get_origin(shape) or shape
    if not isinstance(value, container) or (container is int and isinstance(value, bool)):
        raise SpecError(f"expected {_NAMES[container]}, got {_excerpt(value)}", path=path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, get_args(shape)[0], f"{path}[{index}]")
    elif isinstance(value, dict) and not is_typeddict(shape):
        for key, item in value.items():
            _check(item, get_args(shape)[1], f"{path}[{json.dumps(key)}]")
    elif isinstance(value, dict):
        for key in sorted(shape.__required_keys__ - value.keys()):
            raise SpecError(f"{key} is missing", path=path)
        for key, inner in _hints(shape).items():
            if key in value:
                _check(value[key], inner, f"{path}.{key}" if path else key)


def _excerpt(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:  # what could just be read needs a little more stack to be written
        return f"{_NAMES[type(value)]} nested too deeply to be shown"
    return text if len(text) <= 40 else f"{text[:37]}..."
