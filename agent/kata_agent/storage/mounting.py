"""The mount that most drivers come down to, and undoing it. Both block: call them off the event loop."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.errors import InvalidArgument, Unimplemented
from kata_agent.storage import options as mount_options

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage

_LOG = logging.getLogger(__name__)

_OURS = ("io.katacontainers.", "X-kata.")  # options that are for the agent; a driver takes out those it knows


def mount(storage: Storage, *, extra: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> bool:
    """Make the mount point, a file for a file and a directory for the rest, and mount.

    Args:
        storage: What is mounted where.
        extra: Options besides the storage's.
        without: Names of options that are not for the mount.

    Raises:
        Unimplemented: An option asks the agent for something that no driver does.
        OSError: The kernel refuses.
    """
    options = [option for option in (*storage.options, *extra) if option.partition("=")[0] not in without]
    for option in options:
        if option.startswith(_OURS):
            raise Unimplemented(f"storage {storage.mount_point}: option {option} is not supported")
    flags, propagation, data = mount_options.parse(options)
    target = Path(storage.mount_point)
    if flags & linux.MS_BIND and Path(storage.source).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o644)
    else:
        target.mkdir(parents=True, exist_ok=True)
    linux.mount(storage.source, str(target), storage.fstype, flags, data)
    if flags & linux.MS_BIND and flags & ~(linux.MS_BIND | linux.MS_REC):
        linux.mount("", str(target), flags=flags | linux.MS_REMOUNT)  # a bind takes its flags only when remounted
    if propagation:
        linux.mount("", str(target), flags=propagation)
    return True


def unmount(mount_point: str) -> None:
    """Unmount, and remove the mount point if it is empty; what cannot be undone is logged."""
    try:
        linux.unmount(mount_point, linux.MNT_DETACH)
    except OSError as error:
        _LOG.warning("cannot unmount %s: %s", mount_point, error.strerror)
        return
    with contextlib.suppress(OSError):  # not ours alone
        Path(mount_point).rmdir()


def option(storage: Storage, name: str) -> str | None:
    """The value of an option `name=value`; None without it."""
    return next((value for key, _, value in (each.partition("=") for each in storage.options) if key == name), None)


def number(storage: Storage, name: str, base: int = 10) -> int | None:
    """The value of an option that is a number.

    Raises:
        InvalidArgument: It is none.
    """
    value = option(storage, name)
    if value is None:
        return None
    try:
        return int(value, base)
    except ValueError:
        raise InvalidArgument(f"storage {storage.mount_point}: {name}={value} is no number") from None
