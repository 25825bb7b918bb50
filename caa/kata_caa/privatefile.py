"""Small files of this user alone, such as keys: made whole, and read only if nobody else could."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_SIZE_MAX: Final = 1 << 16  # bytes; an authority's file has about three thousand


def read(path: Path) -> str:
    """The text of a file that nobody else can read or has written.

    Raises:
        OSError: It cannot be read.
        ValueError: It is of another kind, or of others.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, encoding="ascii") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _SIZE_MAX:
            raise ValueError("it is no file of keys")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(
                f"others than this user may have read it (owner {found.st_uid}, {found.st_mode & 0o777:o})"
            )
        return file.read()


def create(path: Path, text: str) -> None:
    """Write a file beside its place, and link it into it.

    Raises:
        FileExistsError: Somebody was first.
        OSError: It cannot be written.
    """
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    flush(path.parent)


def replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it into it; it is on the disk when this returns.

    A reader sees all of it, or what was there before, also after the node has lost its power.

    Raises:
        OSError: It cannot be written; what was there before stays, and nothing beside it.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        beside.rename(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()  # if it ever was
        raise OSError(error.errno, error.strerror, str(path)) from None
    flush(path.parent)


def flush(directory: Path) -> None:
    """Have it on the disk which files a directory has.

    Raises:
        OSError: It cannot be.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
