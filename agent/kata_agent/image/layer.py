"""Layers of an image, each unpacked to a directory that an overlay takes as it is.

Each is unpacked into an empty directory, so that no link of one layer leads the files of another one astray, and by GNU
tar, which makes no link that leaves the directory before the end. Source: OCI image specification 1.0, `layer.md`;
Linux `Documentation/filesystems/overlayfs.rst` for whiteouts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.image import program
from kata_agent.image.errors import DiskFull, PullError

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper

_PREFIX = ".wh."
_OPAQUE = ".wh..wh..opq"
_OPAQUE_MARK = "trusted.overlay.opaque"

_TAR = (
    "tar", "--extract", "--file=-", "--verbose", "--quoting-style=literal", "--numeric-owner", "--same-owner",
    "--preserve-permissions", "--delay-directory-restore", "--xattrs", "--xattrs-include=security.capability",
    "--xattrs-include=user.*",
)  # fmt: skip

# By the end of a layer's media type, of OCI and of Docker.
_PACKED = {
    "tar": (), "tar+gzip": ("--gzip",), "tar.gzip": ("--gzip",), "tar+zstd": ("--zstd",), "tar.zstd": ("--zstd",),
}  # fmt: skip


async def unpack(
    reaper: Reaper, blob: Path, media_type: str, into: Path, below: Sequence[Path], *, stall: float
) -> None:
    """Unpack a layer.

    Args:
        reaper: Starts tar.
        blob: The layer as the registry has it.
        media_type: What that is.
        into: Directory that is made.
        below: The layers that it lies upon, the nearest first.
        stall: As for `program.run`.

    Raises:
        PullError: It is of an unknown kind, encrypted or damaged; what was made is left to the caller.
        DiskFull: There is no room.
        OSError: The directory cannot be made.
    """
    kind = next((end for end in _PACKED if media_type.endswith(f".{end}")), None)
    if kind is None:
        raise PullError(f"a layer is {media_type}, which this guest cannot unpack; it can tar, with gzip or zstd")
    await asyncio.to_thread(into.mkdir, parents=True)
    with blob.open("rb") as file:
        # What tar starts to unpack with reads from the same place: its offset is how far they are.
        outcome = await program.run(
            reaper, (*_TAR, *_PACKED[kind], f"--directory={into}"), stdin=file.fileno(), stall=stall,
            progress=lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR),
        )  # fmt: skip
    if outcome.code:
        raise _fault(outcome, _PACKED[kind])
    try:
        await asyncio.to_thread(_settle, into, outcome.output, below)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(_NO_ROOM) from error
        raise


_NO_ROOM = "there is no room for a layer"


def _fault(outcome: program.Outcome, packed: Sequence[str]) -> PullError:
    said = " ".join(outcome.errors.split())[-300:] or f"tar ended with status {outcome.code}"
    if any(words in said for words in ("No space left on device", "quota exceeded", "Wrote only")):
        return DiskFull(_NO_ROOM)
    if "Cannot exec" in said:
        return PullError(f"a layer needs {packed[0].strip('-')} to be unpacked, and this guest has no such program")
    return PullError(f"a layer cannot be unpacked: {said}")


def _settle(root: Path, listing: str, below: Sequence[Path]) -> None:
    """Make what tar has left a layer of an overlay."""
    named = {line.removeprefix("./").strip("/") for line in listing.splitlines() if line.endswith("/")}
    for directory, directories, files in os.walk(root):
        path = os.path.relpath(directory, root)
        if path != "." and path not in named:
            _inherit(Path(directory), [layer / path for layer in below])
        for name in (*files, *directories):
            if name.startswith(_PREFIX):
                _white_out(Path(directory), name)
        directories[:] = [name for name in directories if not name.startswith(_PREFIX)]
    if "." not in named and "" not in named:
        _inherit(root, below)


def _white_out(directory: Path, name: str) -> None:
    """What hides something of the layers below, as overlayfs has it; what stands in this layer itself stays."""
    marker = directory / name
    if not stat.S_ISREG(marker.lstat().st_mode):
        raise PullError(f"a layer is damaged: {name} is no file")
    marker.unlink()
    if name == _OPAQUE:
        os.setxattr(directory, _OPAQUE_MARK, b"y")
        return
    hidden = directory / name.removeprefix(_PREFIX)
    if hidden.name in ("", ".", "..") or name.startswith(_PREFIX * 2):
        return  # notes of aufs's own
    try:
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
    except FileExistsError:
        if stat.S_ISDIR(hidden.lstat().st_mode):
            os.setxattr(hidden, _OPAQUE_MARK, b"y")


def _inherit(directory: Path, below: Iterable[Path]) -> None:
    """Let a directory that the layer only passes through be as it is below; tar has made it anyhow."""
    for place in below:
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISDIR(found.st_mode):
            os.chown(directory, found.st_uid, found.st_gid)
            directory.chmod(stat.S_IMODE(found.st_mode))
        return
