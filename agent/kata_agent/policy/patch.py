"""JSON patches, by which rules keep state. Source: RFC 6901 and RFC 6902."""

from __future__ import annotations

import copy

from kata_agent.policy.document import Json


class PatchError(ValueError):
    """A patch has not its form, or does not fit the document."""


def applied(document: Json, operations: Json) -> Json:
    """The document with all operations applied in order; the given one stays as it is.

    Raises:
        PatchError: An operation has not its form, names what is not there, or tests what is not so.
    """
    if not isinstance(operations, list):
        raise PatchError("a patch is a list of operations")
    document = copy.deepcopy(document)
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (LookupError, TypeError, ValueError) as error:
            raise PatchError(f"cannot apply {operation}: {error}") from error
    return document


def _apply(document: Json, operation: Json) -> Json:
    if not isinstance(operation, dict):
        raise ValueError("not an operation")
    path = _tokens(operation["path"])
    match operation["op"]:
        case "add":
            return _added(document, path, operation["value"])
        case "remove":
            return _removed(document, path)
        case "replace":
            return _added(_removed(document, path), path, operation["value"])
        case "move":
            source = _tokens(operation["from"])
            value = _found(document, source)
            return _added(_removed(document, source), path, value)
        case "copy":
            return _added(document, path, copy.deepcopy(_found(document, _tokens(operation["from"]))))
        case "test":
            if not _same(_found(document, path), operation["value"]):
                raise ValueError("it is something else")
            return document
        case other:
            raise ValueError(f"no such operation: {other}")


def _tokens(pointer: Json) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise ValueError(f"not a pointer: {pointer}")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _found(document: Json, path: list[str]) -> Json:
    for token in path:
        match document:
            case dict():
                document = document[token]
            case list():
                document = document[_index(token, len(document) - 1)]
            case _:
                raise LookupError(f"nothing is below {token}")
    return document


def _added(document: Json, path: list[str], value: Json) -> Json:
    value = copy.deepcopy(value)
    if not path:
        return value
    match _found(document, path[:-1]):
        case dict() as parent:
            parent[path[-1]] = value
        case list() as items:
            items.insert(len(items) if path[-1] == "-" else _index(path[-1], len(items)), value)
        case _:
            raise LookupError(f"nothing can be below {path[:-1]}")
    return document


def _removed(document: Json, path: list[str]) -> Json:
    if not path:
        return None
    match _found(document, path[:-1]):
        case dict() as parent:
            del parent[path[-1]]
        case list() as items:
            del items[_index(path[-1], len(items) - 1)]
        case _:
            raise LookupError(f"nothing is below {path[:-1]}")
    return document


def _index(token: str, last: int) -> int:
    if not (token.isascii() and token.isdecimal()) or (token != "0" and token.startswith("0")) or int(token) > last:
        raise LookupError(f"no such index: {token}")
    return int(token)


def _same(one: Json, other: Json) -> bool:
    """Equality in JSON, where true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other
