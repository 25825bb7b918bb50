"""The command line as managers write it: Go's flags, and at most one action.

A flag has one dash or two, its value follows or stands behind `=`. On the start path: next to no imports.
"""
# pathlib would cost the start path 5 ms.
# ruff: noqa: PTH100, PTH109

from __future__ import annotations

import os

from kata_py.shim.errors import UsageError

_TEXTS = ("address", "bundle", "debug-socket", "id", "namespace", "publish-binary", "socket")
_SWITCHES = ("debug", "info", "v", "version")
_ACTIONS = ("start", "delete", "features")


class Invocation:
    """The command line, read.

    Attributes:
        action: `start`, `delete`, `features`, or empty: the daemon.
        rest: The words without the action: what `start` passes on to the daemon.
    """

    __slots__ = ("action", "rest", "switches", "texts")

    def __init__(self, words: list[str]) -> None:
        self.action = ""
        self.rest: list[str] = []
        self.texts: dict[str, str] = {}
        self.switches: set[str] = set()
        words = list(words)
        while words:
            word = words.pop(0)
            if not word.startswith("-"):
                if self.action or word not in _ACTIONS:
                    raise UsageError(f"unexpected word {word!r}; the action is one of {', '.join(_ACTIONS)}")
                self.action = word
                continue
            self.rest.append(word)
            name, equals, value = word.lstrip("-").partition("=")
            if name in _SWITCHES:
                if value.lower() not in ("0", "f", "false"):
                    self.switches.add(name)
                continue
            if not equals and words and (name in _TEXTS or _is_value(words[0])):
                value = words.pop(0)
                self.rest.append(value)
            self.texts[name] = value  # also an unknown one's: a newer manager's flag is no error

    @property
    def address(self) -> str:
        """The manager's gRPC address; empty under CRI-O."""
        return self.texts.get("address", "")

    @property
    def bundle(self) -> str:
        """The bundle directory: the flag's, else the working directory."""
        return os.path.abspath(self.texts.get("bundle") or os.getcwd())

    @property
    def debug(self) -> bool:
        """Whether the manager logs at debug level."""
        return "debug" in self.switches

    @property
    def id(self) -> str:
        """The container's id."""
        return self.texts.get("id", "")

    @property
    def namespace(self) -> str:
        """The manager's namespace."""
        return self.texts.get("namespace", "")

    @property
    def socket(self) -> str:
        """A socket path that replaces the computed one."""
        return self.texts.get("socket", "").removeprefix("unix://")


def _is_value(word: str) -> bool:
    return not word.startswith("-") and word not in _ACTIONS
