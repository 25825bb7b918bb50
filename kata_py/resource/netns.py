"""Network namespaces of the host: told apart by their inode, entered by a thread that then ends.

The delete path imports this module too.
"""

# On the delete path, where pathlib would cost 5 ms.
# ruff: noqa: PTH116

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from kata_py.netlink.thread import in_thread
from kata_py.resource import mount

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OWN = "/proc/self/ns/net"
_FIRST = "/proc/1/ns/net"


class NamespaceGone(OSError):
    """The path leads nowhere by now, or to another namespace: what was in the one that is meant has gone with it."""


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace.

    Attributes:
        path: Where it is found: `/run/netns/cni-…`, `/proc/<pid>/ns/net`.
        inode: Which it is, so that a later one at the same path is not taken for it.
    """

    path: str
    inode: int

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> NetworkNamespace:
        """The namespace that the path leads to now.

        Raises:
            OSError: There is none, with the path.
        """
        return cls(os.fspath(path), os.stat(path).st_ino)

    @property
    def is_host(self) -> bool:
        """Whether it is the one of this process, or of the host's first: what a pod with `hostNetwork` gets."""
        return any(_inode(path) == self.inode for path in (_OWN, _FIRST))

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in the namespace, in a thread of its own, and wait for it. Blocks: not for the event loop.

        Raises:
            NamespaceGone: The namespace is gone.
            OSError: It may not be entered; and whatever the function raises.
        """

        def call() -> _T:
            self._enter()
            return function(*args, **kwargs)

        return in_thread(f"network namespace {self.inode}", call)

    def _enter(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError) as error:
            raise NamespaceGone(errno.ENOENT, "the network namespace is gone", self.path) from error
        try:
            if os.fstat(descriptor).st_ino != self.inode:
                raise NamespaceGone(errno.ENOENT, "the network namespace is gone, another is in its place", self.path)
            mount.setns(descriptor, mount.CLONE_NEWNET, self.path)
        finally:
            os.close(descriptor)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
