"""Authorities on disk: made once, found again after a restart, followed by a new one before they end.

A directory, of this user alone, has a file for each: `authority-1.pem`, `authority-2.pem` … A pod VM trusts the client
of the authority that it was started with, and no other; so a file is never replaced, and what cannot be read is an
error and never made anew. Two adaptors, as there are for a while when one replaces the other, share a directory.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kata_caa import certificates, privatefile
from kata_caa.certificates import Authority
from kata_caa.errors import TlsError

logger = logging.getLogger(__name__)

RENEW_BEFORE: Final = datetime.timedelta(days=365)
"""How long before its end an authority signs no more: a pod VM may run that long at least."""

_FILE: Final = re.compile(r"authority-([1-9]\d*)\.pem")

Clock = Callable[[], datetime.datetime]
"""Gives the time, with its zone."""


def utc_now() -> datetime.datetime:
    """The time."""
    return datetime.datetime.now(datetime.UTC)


class Authorities:
    """The authorities in a directory. Its methods read and write small files: call them off the event loop.

    Args:
        directory: Where they are kept; made if it is not there.
        clock: Gives the time.
    """

    def __init__(self, directory: Path, clock: Clock = utc_now) -> None:
        self._directory = directory
        self._clock = clock
        self._known: dict[int, Authority] = {}

    def current(self) -> tuple[str, Authority]:
        """The authority for new pod VMs, with its name; made if there is none yet, or the last one ends soon.

        Raises:
            TlsError: The directory, or a file in it, cannot be used.
        """
        self._open_directory()
        number = max((int(found[1]) for name in self._names() if (found := _FILE.fullmatch(name))), default=0)
        if number:
            authority = self._read(number)
            if authority.expires - self._clock() > RENEW_BEFORE:
                return _name(number, authority), authority
        authority = self._make(number + 1)
        return _name(number + 1, authority), authority

    def find(self, name: str) -> Authority:
        """The authority that a pod VM was started with.

        Args:
            name: As `current` gave it.

        Raises:
            TlsError: It is gone, or was replaced by another one, or cannot be read.
        """
        number = name.partition("-")[0]
        if not number.isascii() or not number.isdigit():
            raise TlsError(f"{name!r:.80} names no authority; delete the pod that it was recorded for")
        self._open_directory()
        authority = self._read(int(number))
        if _name(int(number), authority) != name:
            raise TlsError(
                f"{self._path(int(number))} is not the authority {name} that the pod VM was started with: "
                "put that file back, or delete the pod"
            )
        return authority

    def _path(self, number: int) -> Path:
        return self._directory / f"authority-{number}.pem"

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._directory)  # noqa: PTH208 names are all that is wanted
        except OSError as error:
            raise _directory_error(self._directory, error) from error

    def _open_directory(self) -> None:
        directory = self._directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
            if found.st_uid != os.geteuid():
                raise TlsError(f"{directory} belongs to user {found.st_uid}: name a directory of this user's own")
            if found.st_mode & 0o077:
                directory.chmod(0o700)  # a volume's mount point is made for everybody
        except OSError as error:
            raise _directory_error(directory, error) from error

    def _read(self, number: int) -> Authority:
        if (known := self._known.get(number)) is not None:
            return known
        path = self._path(number)
        try:
            authority = certificates.load(privatefile.read(path))
        except FileNotFoundError as error:
            raise TlsError(f"{path} is gone: put it back, or delete the pods whose VMs were started with it") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise TlsError(
                f"{path} cannot be used: {reason}; put the right file back, or delete the pods of this node and then "
                "the file: a new one is made for new pods"
            ) from error
        self._known[number] = authority
        return authority

    def _make(self, number: int) -> Authority:
        """Write an authority into its place, if nobody else was first."""
        authority = certificates.make_authority(self._clock())
        path = self._path(number)
        try:
            privatefile.create(path, certificates.dump(authority))
        except FileExistsError:
            return self._read(number)
        except OSError as error:
            raise TlsError(f"{path} cannot be written: {error.strerror}; make room for it") from error
        logger.info("made %s, which ends on %s", path, f"{authority.expires:%Y-%m-%d}")
        self._known[number] = authority
        return authority


def _name(number: int, authority: Authority) -> str:
    return f"{number}-{authority.fingerprint[:16]}"


def _directory_error(directory: Path, error: OSError) -> TlsError:
    return TlsError(f"{directory} cannot keep certificates: {error.strerror}; name another directory")
