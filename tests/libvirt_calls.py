"""libvirt's objects, with something done around each call: to make any one of them fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")

Around = Callable[[str], AbstractContextManager[None]]

_SILENT = ("isAlive", "close", "setKeepAlive", "name", "UUIDString", "path", "abort")  # they ask no one


class _Watched:
    """An object whose methods are watched; what they return is as well."""

    def __init__(self, inner: object, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __getattr__(self, name: str) -> object:
        method = getattr(self._inner, name)

        def call(*args: object) -> object:
            plain = [each._inner if isinstance(each, _Watched) else each for each in args]
            if name in _SILENT:
                return method(*plain)
            with self._around(f"{type(self._inner).__name__}.{name}"):
                result = method(*plain)
            return _wrapped(result, self._around)

        return call


def watched(connect: T, around: Around) -> T:
    """A connection like this one, that is watched."""
    return _Watched(connect, around)  # type: ignore[return-value] # it has all of its methods


def _wrapped(result: object, around: Around) -> object:
    if isinstance(result, list) and result and type(result[0]).__name__ == "virDomain":
        return [_Watched(each, around) for each in result]
    return _Watched(result, around) if type(result).__name__.startswith("vir") else result
