"""`kata-ctl direct-volume`: volumes that storage drivers hand to machines as disks.

Source: kata `src/runtime/cmd/kata-runtime/kata-volume.go`, whose clients name a volume to the shim by its device.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from kata_py.cli import shim
from kata_py.cli.errors import CtlError, ShimError
from kata_py.cli.shim import Shim
from kata_py.sandbox.sockets import ROOTS
from kata_py.storage import direct
from kata_py.storage.direct import DirectVolume
from kata_py.storage.errors import StorageError

_EXAMPLE = '{"volume-type": "block", "device": "/dev/sdb", "fstype": "ext4"}'


def add(path: str, mount_info: str, root: Path = direct.ROOT) -> None:
    """Describe the volume that pods name by a path.

    Raises:
        CtlError: The description cannot be used, or not be written.
    """
    try:
        volume = DirectVolume.from_json(mount_info, "the mount info")
    except StorageError as error:
        raise CtlError(str(error), f"a mount info is like {_EXAMPLE}") from error
    if not path.startswith("/"):
        raise CtlError(f"the volume's path {path!r} is not absolute", "give the path as the pod's mount names it")
    try:
        direct.add(path, volume, root)
    except OSError as error:
        raise CtlError(f"the volume cannot be described: {error}", "run as root") from error


def remove(path: str, root: Path = direct.ROOT) -> None:
    """Forget a volume; one that is not known is forgotten already.

    Raises:
        CtlError: Its description is there still.
    """
    direct.remove(path, root)
    if direct.place(path, root).exists():
        raise CtlError(f"the description of {path} in {direct.place(path, root)} cannot be removed", "run as root")


def stats(path: str, root: Path = direct.ROOT, sandboxes: tuple[Path, ...] = ROOTS) -> str:
    """How full a volume is, in JSON.

    Raises:
        CtlError: Nobody uses it, or the sandbox that does cannot tell.
    """
    device = _device(path, root)
    return _asked(path, root, sandboxes, device, "GET", f"/direct-volume/stats?path={quote(quote(device, safe=''))}")


def resize(path: str, size: int, root: Path = direct.ROOT, sandboxes: tuple[Path, ...] = ROOTS) -> None:
    """Make a volume larger: its disk, and the file system on it in the guest.

    Args:
        path: What pods name it by.
        size: Bytes.
        root: Where descriptions lie.
        sandboxes: Where sandboxes' sockets lie.

    Raises:
        CtlError: Nobody uses it, or it could not be made larger.
    """
    device = _device(path, root)
    body = json.dumps({"VolumePath": device, "Size": size}).encode()
    _asked(path, root, sandboxes, device, "POST", "/direct-volume/resize", body)


def _device(path: str, root: Path) -> str:
    try:
        volume = direct.find(Path(path), root)
    except StorageError as error:
        raise CtlError(str(error), "describe it anew with: kata-ctl direct-volume add") from error
    if volume is None:
        raise CtlError(f"no direct-assigned volume {path} is known", "describe it with: kata-ctl direct-volume add")
    return str(volume.device)


def _asked(
    path: str, root: Path, sandboxes: tuple[Path, ...], device: str, method: str, target: str, body: bytes = b""
) -> str:
    """The answer of the sandbox that uses the volume: the one noted beside its description, else the one that does."""
    noted = direct.sandbox_of(path, root)
    shims: list[Shim] = [shim.find(noted, sandboxes)] if noted else list(shim.running(sandboxes))
    for each in shims:
        try:
            return each.request(method, target, body).decode()
        except ShimError as error:
            if noted or (error.status and f"has no direct-assigned volume {device}" not in error.cause):
                raise
    raise CtlError(f"no running sandbox uses the volume {path}", "start the pod that mounts it first")
