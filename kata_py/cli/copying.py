"""`kata-ctl cp`: files and directories into a container and out of it, as archives that `tar` there reads and writes.

As in `docker cp`, what is copied to a directory that is there comes to lie in it; anything else is the copy's own name.
Modes are kept, owners are not: a host's users mean nothing in a guest, nor a guest's on the host. What comes from a
guest is not trusted: its names stay below the destination, no link of it is followed, and only files, directories and
links are made.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from kata_py.cli.errors import CtlError
from kata_py.cli.guest_process import GuestProcess
from kata_py.cli.shim import Shim

_PIECE = 1 << 16  # bytes
_LINKS_MAX = 100_000  # they are made last, and kept until then
_UNREAD = "the guest's policy may keep outputs from being read (ReadStreamRequest)"

Warn = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Place:
    """Files in a sandbox.

    Attributes:
        sandbox: Its id or the beginning of it, or its pod.
        container: The container's id or the beginning of it, or its name; empty is the guest itself.
        path: Absolute.
    """

    sandbox: str
    container: str
    path: str


def place(text: str) -> Place | Path:
    """What is named: `SANDBOX:PATH` and `SANDBOX:CONTAINER:PATH` are in a sandbox, all else is on this host.

    A file of the host whose name has a colon is told by a path that begins with `/` or `.`; a pod's namespace may stand
    before its name, with a slash.

    Raises:
        CtlError: The path in the sandbox is not absolute.
    """
    name, colon, rest = text.partition(":")
    if not colon or not name or text[0] in "/." or name.count("/") > 1:
        return Path(text)
    container, path = ("", rest) if rest.startswith("/") else rest.split(":", 1) if ":" in rest else ("", rest)
    if not path.startswith("/"):
        raise CtlError(f"{path!r} in {text!r} is not absolute", "write SANDBOX:CONTAINER:/PATH")
    return Place(name, container, posixpath.normpath(path))


def into(shim: Shim, container: str, source: Path, target: str, warn: Warn) -> None:
    """Copy a file or directory of this host into a container.

    Args:
        shim: The shim of its sandbox.
        container: The container's id.
        source: What is copied; a link is followed.
        target: Where to.
        warn: Is told what is left out.

    Raises:
        CtlError: It cannot be read, or not be written there.
    """
    try:
        source = source.resolve(strict=True)
    except OSError as error:
        raise CtlError(f"{source} cannot be read: {error.strerror}") from error
    with GuestProcess(shim, container, ["test", "-d", target]) as test:
        is_directory = test.wait() == 0
    directory, name = (target, source.name) if is_directory else posixpath.split(target)
    with GuestProcess(shim, container, ["tar", "-xopf", "-", "-C", directory]) as tar:
        reading = tar.fed()
        try:
            # GNU's form is the one that every tar knows.
            with tarfile.open(fileobj=_io(tar), mode="w|", format=tarfile.GNU_FORMAT) as archive:
                archive.add(source, name, filter=lambda member: _given(member, warn))
            tar.end_stdin()
        except (BrokenPipeError, ConnectionError):  # it has ended, and says why
            pass
        except OSError as error:
            raise CtlError(f"{error.filename or source} cannot be read: {error.strerror}") from error
        reading.join()
        tar.succeed()


def out_of(shim: Shim, container: str, source: str, target: Path, warn: Warn) -> None:
    """Copy a file or directory out of a container; arguments as for `into`.

    Raises:
        CtlError: It cannot be read there, or not be written here; or what came is not what was asked for.
    """
    directory, name = posixpath.split(source)
    if not name:
        raise CtlError("a container's whole root is not copied", "name a directory in it")
    if target.is_dir():
        target = target / name
    with GuestProcess(shim, container, ["tar", "-cf", "-", "-C", directory, "--", name]) as tar:
        try:
            with tarfile.open(fileobj=_io(tar), mode="r|") as archive:
                came = unpack(archive, name, target, warn)
        except tarfile.TarError as error:
            tar.succeed()
            raise CtlError(f"nothing that is an archive came out of the container: {error}", _UNREAD) from error
        except OSError as error:
            raise CtlError(f"{error.filename or target} cannot be written: {error.strerror}") from error
        tar.succeed()
        if not came:
            raise CtlError(f"{source} did not come", _UNREAD)


def unpack(archive: tarfile.TarFile, name: str, target: Path, warn: Warn) -> bool:
    """Unpack what a guest sends; whether there was anything.

    Args:
        archive: What it sends.
        name: What was asked for: its files are that, or below it.
        target: What that becomes here.
        warn: Is told what is left out.

    Raises:
        CtlError: A name leads elsewhere.
        OSError: It cannot be written.
        tarfile.TarError: It is no archive.
    """
    modes: list[tuple[Path, int]] = []
    links: list[tuple[Path, str]] = []
    came = False
    for member in archive:
        top, *below = [part for part in member.name.split("/") if part not in ("", ".")] or [""]
        if top != name or ".." in below or "\0" in member.name:
            raise CtlError(f"the guest sent {member.name[:200]!r}, which is not below {name}", "trust nothing of it")
        path = _below(target, below)
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)
            _require_directory(path)
            modes.append((path, member.mode & 0o777))
        elif member.isreg():
            content = archive.extractfile(member)
            assert content is not None
            _write(path, content, member.mode & 0o777)
        elif member.issym() and len(links) < _LINKS_MAX:
            links.append((path, member.linkname))
        else:
            warn(f"{member.name} is left out: it is neither file, directory nor link")
            continue
        came = True
    for path, to in links:
        beside = _beside(path)
        beside.symlink_to(to)
        beside.replace(path)
    for path, mode in reversed(modes):  # what may not be written has been filled by now
        path.chmod(mode)
    return came


def _below(target: Path, names: list[str]) -> Path:
    """A path below the target, through directories alone: of an earlier copy there may be links."""
    for parent in (target.joinpath(*names[:depth]) for depth in range(len(names))):
        _require_directory(parent)
    return target.joinpath(*names)


def _require_directory(path: Path) -> None:
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise CtlError(f"{path} is no directory", "copy to another place")


def _write(path: Path, content: IO[bytes], mode: int) -> None:
    """Beside and renamed: who reads it meanwhile finds what was there before, and no link is followed."""
    beside = _beside(path)
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while data := content.read(_PIECE):
                file.write(data)
        beside.chmod(mode)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".kata-ctl-{secrets.token_hex(8)}")


def _given(member: tarfile.TarInfo, warn: Warn) -> tarfile.TarInfo | None:
    """What of a file of this host is told to a container."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        warn(f"{member.name} is left out: it is neither file, directory nor link")
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _io(process: GuestProcess) -> IO[bytes]:
    return cast(IO[bytes], cast(Any, process))
