"""The mount namespace that a shim was started in, and has left for one of its own.

What is mounted there later on is seen in the shim's, too, unless it lies below a mount that is private. CRI-O's
storage makes its home such a one, so the shim would find empty directories where containers' root file systems are.
Upstream has CRI-O changed for that, on a whole node (`overlay.skip_mount_home`, kata#9206); here nothing need be.

Source: setns(2), open_tree(2), mount_namespaces(7); containers/storage `drivers/overlay/overlay.go`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kata_py.netlink.thread import in_thread
from kata_py.resource import mount

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OWN = "/proc/self/ns/mnt"


class MountNamespace:
    """A mount namespace, held open so that it can be entered.

    Args:
        descriptor: The open namespace, taken over.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def own(cls) -> MountNamespace:
        """The one that this process is in now."""
        return cls(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in the namespace, in a thread of its own, and wait for it. Blocks: not for the event loop.

        What it says of `/proc/self` is of the process, and so of another namespace: `/proc/thread-self` is of this one.

        Raises:
            OSError: It may not be entered; and whatever the function raises.
        """

        def call() -> _T:
            mount.unshare(mount.CLONE_FS)  # root and working directory become the thread's own, and it can go
            mount.setns(self._descriptor, mount.CLONE_NEWNS, _OWN)
            return function(*args, **kwargs)

        return in_thread("mount namespace", call)
