"""Connections to the kernel's network in other namespaces, and namespaces that have a path.

A socket belongs to the namespace in which it was made, whoever uses it: a thread that ends afterwards makes it.
Source: setns(2), unshare(2), ip-netns(8).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kata_py.netlink.rtnetlink import Link, Rtnetlink
from kata_py.netlink.thread import in_thread

_OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096


def connect(path: str | os.PathLike[str]) -> Rtnetlink:
    """A connection to the network of the namespace at a path; like all here it blocks for a moment.

    Raises:
        FileNotFoundError: There is nothing at the path.
        OSError: It is no network namespace, or may not be entered; with the path.
    """

    def made() -> Rtnetlink:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", os.fspath(path), descriptor, _CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return Rtnetlink()

    return in_thread("network namespace", made)


def make_link(
    own: Rtnetlink, inside: Rtnetlink, descriptor: int, name: str, kind: str, data: bytes, *, number: int, **values: Any
) -> Link:
    """Make an interface in another namespace; what carries its packets, such as those of a tunnel, is ours.

    Older kernels (6.1 is one) refuse a name that somebody has here, though the interface is for there. So it has one of
    its own until it is there.

    Args:
        own: Our network.
        inside: The namespace's.
        descriptor: The namespace.
        name: What it is called in the end.
        kind: As for `Rtnetlink.add_link`, and so are data and values.
        data: What the driver is told.
        number: Tells it from others for that moment.
        values: Further ones.

    Raises:
        OSError: The kernel refuses; what was made under the first name may be left.
    """
    first = f"pp{number}"
    own.add_link(first, kind, data, namespace=descriptor, **values)
    link = next(link for link in inside.links() if link.name == first)
    inside.set_link(link, name=name)
    return link._replace(name=name)


def is_namespace(path: str | os.PathLike[str]) -> bool:
    """Whether a namespace is found at a path, rather than a file that one could be mounted on."""
    try:
        return os.stat(path).st_dev == os.stat(_OWN).st_dev  # noqa: PTH116 either kind of path
    except FileNotFoundError:
        return False


def make(path: Path) -> bool:
    """Make a network namespace that stays, mounted at a path, unless there is one.

    Returns:
        Whether it was made.

    Raises:
        OSError: It cannot be made, with the path.
    """
    if is_namespace(path):
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.touch(mode=0o444)

    def mount() -> None:
        _call("unshare", os.fspath(path), _CLONE_NEWNET)
        _call("mount", os.fspath(path), _OWN.encode(), os.fsencode(path), None, _MS_BIND, None)

    in_thread("network namespace", mount)
    return True


def _call(name: str, subject: str, *arguments: object) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    # A plain number is passed with the bits of an int, and flags of mount(2) have those of a long.
    if getattr(library, name)(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
