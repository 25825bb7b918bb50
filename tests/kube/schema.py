"""Whether a document is of its kind, strictly: by the official client's models, and by our CRD for PeerPods."""

from __future__ import annotations

import datetime
import functools
import re
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import models

CRD = Path(__file__).resolve().parents[2] / "configs" / "kubernetes" / "10-crd-peerpod.yaml"
_PRIMITIVES: dict[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "int": int, "float": (int, float)}


class Invalid(Exception):
    """A document that is not of its kind; says where."""


def check(document: Any, model: str) -> None:
    """See to it that a document is of a kind; a field that is unknown, missing or of another type is an error.

    Args:
        document: JSON.
        model: A class of `kubernetes.client.models`, or `PeerPod`, or one of these in `list[…]`.
    """
    if model == "PeerPod":
        _by_crd(document, _crd(), "PeerPod")
        check(document["metadata"], "V1ObjectMeta")
    else:
        _check(document, model, model)


def _check(value: Any, kind: str, path: str) -> None:
    if kind == "object":
        return
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            raise Invalid(f"{path} is no list")
        for number, each in enumerate(value):
            _check(each, match[1], f"{path}[{number}]")
    elif match := re.fullmatch(r"dict[(\[]str, (.+)[)\]]", kind):
        if not isinstance(value, dict):
            raise Invalid(f"{path} is no map")
        for key, each in value.items():
            _check(each, match[1], f"{path}.{key}")
    elif kind in _PRIMITIVES:
        if not isinstance(value, _PRIMITIVES[kind]) or (kind != "bool" and isinstance(value, bool)):
            raise Invalid(f"{path}: {value!r} is no {kind}")
    elif kind == "datetime":
        _check_time(value, path)
    else:
        _check_model(value, kind, path)


def _check_time(value: Any, path: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value):
        raise Invalid(f"{path}: {value!r} is no time")
    datetime.datetime.fromisoformat(value)


def _check_model(value: Any, kind: str, path: str) -> None:
    model = getattr(models, kind)
    if not isinstance(value, dict):
        raise Invalid(f"{path} is no {kind}")
    names = {json: attribute for attribute, json in model.attribute_map.items()}
    if unknown := set(value) - set(names):
        raise Invalid(f'{path}: unknown field "{", ".join(sorted(unknown))}"')
    for key, each in value.items():
        if each is not None:
            _check(each, model.openapi_types[names[key]], f"{path}.{key}")
    try:
        model(**{names[key]: each for key, each in value.items()})  # it knows what is required
    except ValueError as error:
        raise Invalid(f"{path}: {error}") from error


@functools.cache
def _crd() -> dict[str, Any]:
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _by_crd(value: Any, schema: dict[str, Any], path: str) -> None:
    kind = {"object": dict, "string": str, "boolean": bool}[schema["type"]]
    if not isinstance(value, kind):
        raise Invalid(f"{path}: {value!r} is no {schema['type']}")
    if "properties" not in schema:
        return
    if unknown := set(value) - set(schema["properties"]):
        raise Invalid(f'{path}: unknown field "{", ".join(sorted(unknown))}"')
    for key, each in value.items():
        _by_crd(each, schema["properties"][key], f"{path}.{key}")
