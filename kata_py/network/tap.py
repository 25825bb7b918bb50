"""Tap devices and their queues, as open descriptors. Source: `linux/if_tun.h`, kernel `networking/tuntap.rst`."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

_TUN = "/dev/net/tun"
_VHOST_NET = Path("/dev/vhost-net")
_TUNSETIFF, _TUNSETQUEUE = 0x400454CA, 0x400454D9
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x2, 0x100, 0x1000, 0x4000, 0x8000
_IFF_ATTACH_QUEUE = 0x200


def open_tap(name: str, queues: int, descriptors: ExitStack) -> tuple[int, ...]:
    """Make a tap device in this thread's network namespace; it is gone with the last of its descriptors.

    Args:
        name: Its name; no link may have it.
        queues: How many queues, one descriptor for each.
        descriptors: Closes them.

    Raises:
        OSError: It cannot be made, with its name.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    opened = []
    for number in range(queues):
        descriptor = _open(_TUN, descriptors)
        exclusive = 0 if number else _IFF_TUN_EXCL
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags | exclusive))
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from error
        opened.append(descriptor)
    return tuple(opened)


def open_macvtap(index: int, queues: int, descriptors: ExitStack) -> tuple[int, ...]:
    """Open the queues of a macvtap link.

    Args:
        index: The link's; its device node is named for it.
        queues: How many queues, one descriptor for each.
        descriptors: Closes them.

    Raises:
        OSError: The node cannot be opened, with its path.
    """
    return tuple(_open(f"/dev/tap{index}", descriptors) for _ in range(queues))


def attach_queues(descriptors: Iterable[int]) -> None:
    """Let all queues of a tap or macvtap device take part, also those that their last user has detached.

    Raises:
        OSError: A descriptor is not that of a tap's queue.
    """
    for descriptor in descriptors:
        try:
            fcntl.ioctl(descriptor, _TUNSETQUEUE, struct.pack("16xH22x", _IFF_ATTACH_QUEUE))
        except OSError as error:
            if error.errno != errno.EINVAL:  # it takes part already
                raise


def open_vhost(queues: int, descriptors: ExitStack, *, node: Path = _VHOST_NET) -> tuple[int, ...]:
    """Open vhost-net once for each queue; nothing where the host does not have it.

    Args:
        queues: How many queues.
        descriptors: Closes them.
        node: Its device node.

    Raises:
        OSError: It is there and cannot be opened, with its path.
    """
    if not node.exists():
        return ()
    return tuple(_open(str(node), descriptors) for _ in range(queues))


def _open(path: str, descriptors: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    descriptors.callback(os.close, descriptor)
    return descriptor
