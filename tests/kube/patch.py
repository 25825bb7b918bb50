"""Patches as the API server applies them: JSON patch (RFC 6902), strictly and as far as it is used, and merge patch."""

from __future__ import annotations

import copy
from typing import Any


class Unfit(Exception):
    """A patch that does not fit the object; the API server answers 422."""


class Malformed(Exception):
    """A patch that is none; the API server answers 400."""


def json_patch(thing: Any, operations: Any) -> Any:
    """Apply a JSON patch: all of it, or nothing."""
    if not isinstance(operations, list):
        raise Malformed("a JSON patch is a list")
    after = copy.deepcopy(thing)
    for operation in operations:
        after = _apply(after, operation)
    return after


def merge_patch(thing: Any, change: Any) -> Any:
    """Apply a merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    after = copy.deepcopy(thing) if isinstance(thing, dict) else {}
    for key, value in change.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = merge_patch(after.get(key), value)
    return after


def _apply(thing: Any, operation: Any) -> Any:
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "remove", "replace", "test"):
        raise Malformed(f"{operation!r} is no operation that is known here")
    kind = operation["op"]
    if set(operation) != {"op", "path"} | (set() if kind == "remove" else {"value"}):
        raise Malformed(f"{operation!r} lacks a member, or has one too many")
    path = operation["path"]
    if not path.startswith("/"):
        raise Malformed(f"{path!r} is no path into an object")
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    place = thing
    for part in parents:
        place = _member(place, part, path)
    if isinstance(place, list):
        _in_list(place, kind, last, operation, path)
    elif isinstance(place, dict):
        _in_dict(place, kind, last, operation, path)
    else:
        raise Unfit(f"{path}: its parent has no members")
    return thing


def _in_dict(place: dict[str, Any], kind: str, key: str, operation: dict[str, Any], path: str) -> None:
    if kind != "add" and key not in place:
        raise Unfit(f"{kind} {path}: there is none")
    match kind:
        case "remove":
            del place[key]
        case "test":
            if place[key] != operation["value"]:
                raise Unfit(f"test {path}: it is {place[key]!r}")
        case _:
            place[key] = operation["value"]


def _in_list(place: list[Any], kind: str, key: str, operation: dict[str, Any], path: str) -> None:
    if kind == "add":
        place.insert(len(place) if key == "-" else _index(place, key, path, beyond=True), operation["value"])
        return
    number = _index(place, key, path)
    match kind:
        case "remove":
            del place[number]
        case "replace":
            place[number] = operation["value"]
        case "test":
            if place[number] != operation["value"]:
                raise Unfit(f"test {path}: it is {place[number]!r}")


def _member(place: Any, part: str, path: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, path)]
    if isinstance(place, dict) and part in place:
        return place[part]
    raise Unfit(f"{path}: there is no {part!r}")


def _index(place: list[Any], text: str, path: str, *, beyond: bool = False) -> int:
    if not text.isdigit() or (len(text) > 1 and text[0] == "0"):
        raise Unfit(f"{path}: {text!r} is no index")
    if int(text) >= len(place) + beyond:
        raise Unfit(f"{path}: there are {len(place)}")
    return int(text)
