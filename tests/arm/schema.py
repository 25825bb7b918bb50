"""A JSON tree held against a model of Azure's library, more strictly than the library does."""

from __future__ import annotations

import datetime
import enum
import functools
import json
import types
import typing
from typing import Any, Union, get_args, get_origin

import azure.mgmt.compute.models as compute
import azure.mgmt.compute.models._models as compute_models
import azure.mgmt.network.models as network
import azure.mgmt.network.models._models as network_models
from azure.mgmt.compute._utils import model_base as compute_base
from azure.mgmt.network._utils import model_base as network_base

_SPACES = (
    (compute_models, {**vars(compute_models), "_models": compute}, compute_base),
    (network_models, {**vars(network_models), "_models": network}, network_base),
)


class Violation(AssertionError):
    """A tree is not what the model says; names the place in it."""


def verify(model: type, tree: object, *, sent: bool) -> None:
    """Hold a tree against a model, and see whether the library gives it back as it took it.

    Args:
        model: Of `azure.mgmt.compute.models` or `azure.mgmt.network.models`.
        tree: What was read from JSON.
        sent: Whether it is a request's body, in which what ARM alone writes must not stand.

    Raises:
        Violation: A field is unknown, missing, of another type, or lost by the library.
    """
    _model(model, tree, model.__name__, sent)
    base = _space(model)[2]
    read = base._deserialize(model, tree)
    written = json.loads(json.dumps(read, cls=base.SdkJSONEncoder, exclude_readonly=sent))
    if written != tree:
        raise Violation(f"{model.__name__}: the library makes {written} of {tree}")


def _space(model: type) -> tuple[Any, dict[str, Any], Any]:
    for space in _SPACES:
        if model.__module__ == space[0].__name__:
            return space
    raise Violation(f"{model} is no model")


@functools.cache
def _fields(model: type) -> dict[str, tuple[Any, Any]]:
    """A model's fields by their names in JSON: type and what the library knows of them."""
    _, names, base = _space(model)
    hints = typing.get_type_hints(model, names)
    fields: dict[str, Any] = {}
    for each in reversed(model.__mro__):
        fields |= {name: value for name, value in vars(each).items() if isinstance(value, base._RestField)}
    return {field._rest_name_input or name: (hints[name], field) for name, field in fields.items()}


def _model(model: type, tree: object, place: str, sent: bool) -> None:
    if not isinstance(tree, dict):
        raise Violation(f"{place} is no object: {tree!r}")
    known = _fields(model)
    for key, value in tree.items():
        if key not in known:
            raise Violation(f"{place}.{key} is unknown")
        hint, field = known[key]
        if sent and field._visibility == ["read"]:
            raise Violation(f"{place}.{key} is for ARM to write")
        _value(hint, value, f"{place}.{key}", sent)
    for key, (hint, field) in known.items():
        needed = type(None) not in get_args(hint) and not (sent and field._visibility == ["read"])
        if needed and key not in tree:
            raise Violation(f"{place}.{key} is missing")


def _value(hint: Any, value: object, place: str, sent: bool) -> None:
    origin, arguments = get_origin(hint), [each for each in get_args(hint) if each is not type(None)]
    if origin in (Union, types.UnionType):
        enums = [each for each in arguments if isinstance(each, type) and issubclass(each, enum.Enum)]
        if enums:
            if enums == [compute.VirtualMachineSizeTypes]:  # a list of old sizes that Azure says not to use
                _value(str, value, place, sent)
            elif not isinstance(value, str) or value not in {each.value for kind in enums for each in kind}:
                raise Violation(f"{place} is none of {enums}: {value!r}")
        else:
            _value(arguments[0], value, place, sent)
    elif origin is typing.Literal:
        if value not in get_args(hint):
            raise Violation(f"{place} is not {get_args(hint)}: {value!r}")
    elif origin is list:
        if not isinstance(value, list):
            raise Violation(f"{place} is no list: {value!r}")
        for index, each in enumerate(value):
            _value(arguments[0], each, f"{place}[{index}]", sent)
    elif origin is dict:
        if not isinstance(value, dict):
            raise Violation(f"{place} is no map: {value!r}")
        for key, each in value.items():
            _value(arguments[1], each, f"{place}[{key}]", sent)
    elif hint is datetime.datetime:
        if not isinstance(value, str):
            raise Violation(f"{place} is no time: {value!r}")
        datetime.datetime.fromisoformat(value)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Violation(f"{place} is no number: {value!r}")
    elif hint in (str, int, bool):
        if type(value) is not hint:
            raise Violation(f"{place} is no {hint.__name__}: {value!r}")
    else:
        _model(hint, value, place, sent)
