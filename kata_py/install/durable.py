"""Files that are whole after a crash of the host, and changes that one process makes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kata_py.install.errors import InstallError


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it can be put back.

    Attributes:
        data: Its bytes.
        mode: Its permissions.
        owner: User and group; None for those of who writes it.
        modified: When it was last written, in nanoseconds since the epoch; None is now.
    """

    data: bytes
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    modified: int | None = None

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """What a file holds; None if there is none.

        Raises:
            InstallError: There is something other than a file.
            OSError: It cannot be read.
        """
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InstallError(f"{path} is no file but a link, or something else", "move it away, and run this again")
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                owner = (status.st_uid, status.st_gid)
                return cls(file.read(), status.st_mode & 0o7777, owner, status.st_mtime_ns)
        except FileNotFoundError:
            return None

    @property
    def text(self) -> str:
        """Its bytes as a person reads them."""
        return self.data.decode(errors="replace")


def beside(path: Path) -> Path:
    """Where a file is written before it is renamed into its place.

    That is the directory above: CRI-O reads whatever lies in its directory of drop-ins, the half-written too.
    """
    return path.parent.parent / f".{path.name}.kata-py-new"


def replace(path: Path, content: Content) -> None:
    """Write a file so that after a crash there is all of it, or what was there before.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    new = beside(path)
    with new.open("wb") as file:
        file.write(content.data)
        os.fchmod(file.fileno(), content.mode)
        if content.owner is not None:
            os.fchown(file.fileno(), *content.owner)
        file.flush()
        if content.modified is not None:
            os.utime(file.fileno(), ns=(content.modified, content.modified))
        os.fsync(file.fileno())
    new.rename(path)
    settle(path.parent)


def settle(directory: Path) -> None:
    """Have the names in a directory on the disk before what comes next."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only process at work in a directory, which is made; if it is empty at last, it goes.

    Raises:
        InstallError: Another process is at work there.
        OSError: It cannot be made.
    """
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if directory.exists() and os.path.samestat(os.fstat(descriptor), directory.stat()):
                break
        except BlockingIOError:
            os.close(descriptor)
            raise InstallError(
                f"another process is at work in {directory}", "run this again when it has ended"
            ) from None
        os.close(descriptor)  # it went with the last of its files, in the moment before
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()
        os.close(descriptor)
