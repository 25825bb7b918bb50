"""Giving a volume to a group, as Kubernetes' fsGroup wants it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_RW, _RO = 0o660, 0o440
_DIRECTORY = 0o2110  # directories can be entered, and what is made in them belongs to the group


def give(top: Path, group: int, *, read_only: bool, only_if_root_differs: bool) -> None:
    """Change group and mode of everything in the volume.

    Args:
        top: The volume's root.
        group: The group's id.
        read_only: Whether the group may only read.
        only_if_root_differs: Skip the walk when the root already is as wanted.

    Raises:
        OSError: The file system refuses.
    """
    bits = _RO if read_only else _RW
    found = top.stat()
    if only_if_root_differs and found.st_gid == group and found.st_mode & (bits | _DIRECTORY) == bits | _DIRECTORY:
        return
    _give(top, group, bits)
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            _give(Path(directory, name), group, bits)


def _give(path: Path, group: int, bits: int) -> None:
    os.chown(path, -1, group, follow_symlinks=False)
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode):
        path.chmod(stat.S_IMODE(mode) | bits | (_DIRECTORY if stat.S_ISDIR(mode) else 0))
