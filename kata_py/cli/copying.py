"""`kata-ctl cp`: files and directories into a container or the guest and out of it, as archives that `tar` there knows.

As in `docker cp`, what is copied to a directory that is there comes to lie in it; anything else is the copy's own name.
Modes are kept, owners are not: a host's users mean nothing in a guest, nor a guest's on the host. What comes from a
guest is not trusted: its names stay below the destination, no link of it is followed, and only files, directories and
links are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import secrets
import shlex
import stat
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from kata_py.cli import console
from kata_py.cli.errors import CtlError
from kata_py.cli.guest_process import GuestProcess
from kata_py.cli.shim import Shim
from kata_py.ttrpc.address import Address

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
    source = _real(source)
    with GuestProcess(shim, container, is_directory(target)) as test:
        directory, name = (target, source.name) if test.wait() == 0 else posixpath.split(target)
    with GuestProcess(shim, container, reading_tar(directory)) as tar:
        tar.listen()
        try:
            pack(_io(tar), source, name, warn)
            tar.end_stdin()
        except (BrokenPipeError, ConnectionError):  # it has ended, and says why
            pass
        except OSError as error:
            raise CtlError(f"{error.filename or source} cannot be read: {error.strerror}") from error
        tar.succeed()


def out_of(shim: Shim, container: str, source: str, target: Path, warn: Warn) -> None:
    """Copy a file or directory out of a container; arguments as for `into`.

    Raises:
        CtlError: It cannot be read there, or not be written here; or what came is not what was asked for.
    """
    with GuestProcess(shim, container, writing_tar(source)) as tar:
        try:
            came = received(_io(tar), source, target, warn)
        except tarfile.TarError as error:
            tar.succeed()
            raise CtlError(f"nothing that is an archive came out of the container: {error}", _UNREAD) from error
        tar.succeed()
        if not came:
            raise CtlError(f"{source} did not come", _UNREAD)


def into_guest(address: Address, source: Path, target: str, warn: Warn) -> None:
    """As `into`, for the guest itself, over its debug console."""
    source = _real(source)
    status, _ = _ran(address, is_directory(target))
    directory, name = (target, source.name) if status == 0 else posixpath.split(target)
    with tempfile.TemporaryFile() as packed:
        try:
            pack(packed, source, name, warn)
        except OSError as error:
            raise CtlError(f"{error.filename or source} cannot be read: {error.strerror}") from error
        status, said = _ran(address, reading_tar(directory), given=packed)
    if status:
        raise CtlError(f"tar failed in the guest: {said}")


def out_of_guest(address: Address, source: str, target: Path, warn: Warn) -> None:
    """As `out_of`, for the guest itself, over its debug console."""
    tar = shlex.join(writing_tar(source))
    # A terminal is nothing that tar writes to, hence the pipe; what it says besides would come between its output.
    quiet = f'exec 4>&1; s=$({{ {{ {tar} 2> /dev/null; echo $? >&3; }} | cat >&4; }} 3>&1); exit "$s"'
    with tempfile.TemporaryFile() as packed:
        status, _ = _ran(address, ["sh", "-c", quiet], packed.write)
        if status:
            _, said = _ran(address, ["sh", "-c", f"{tar} 2>&1 > /dev/null"])
            raise CtlError(f"tar failed in the guest: {said}")
        packed.seek(0)
        try:
            received(packed, source, target, warn)
        except tarfile.TarError as error:
            raise CtlError(f"nothing that is an archive came out of the guest: {error}") from error


def is_directory(path: str) -> list[str]:
    """What succeeds where a path is a directory's."""
    return ["test", "-d", path]


def reading_tar(directory: str) -> list[str]:
    """What unpacks its stdin, with modes and without owners, by every tar there is."""
    return ["tar", "-xopf", "-", "-C", directory]


def writing_tar(path: str) -> list[str]:
    """What packs a file or directory to its stdout.

    Raises:
        CtlError: It is the root.
    """
    directory, name = posixpath.split(path)
    if not name:
        raise CtlError("a whole root is not copied", "name a directory in it")
    return ["tar", "-cf", "-", "-C", directory, "--", name]


def received(file: IO[bytes], source: str, target: Path, warn: Warn) -> bool:
    """Unpack what comes of a path in a guest; whether there was anything.

    Raises:
        CtlError: It cannot be written here, or is not what was asked for.
        tarfile.TarError: It is no archive.
    """
    name = posixpath.basename(source)
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            return unpack(archive, name, target / name if target.is_dir() else target, warn)
    except OSError as error:
        raise CtlError(f"{error.filename or target} cannot be written: {error.strerror}") from error


def pack(file: IO[bytes], source: Path, name: str, warn: Warn) -> None:
    """Pack what a guest is sent.

    Args:
        file: Takes the archive.
        source: A file or directory.
        name: What it is called in the archive.
        warn: Is told what is left out.

    Raises:
        OSError: It cannot be read, or not be written.
    """
    # GNU's form is the one that every tar knows.
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        archive.add(source, name, filter=lambda member: _given(member, warn))


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


def _real(source: Path) -> Path:
    try:
        return source.resolve(strict=True)
    except OSError as error:
        raise CtlError(f"{source} cannot be read: {error.strerror}") from error


def _ran(
    address: Address,
    command: list[str],
    write: Callable[[bytes], object] | None = None,
    given: IO[bytes] | None = None,
) -> tuple[int, str]:
    """A command's status in the guest, and what it said if nobody else takes that."""
    said = bytearray()
    status = asyncio.run(console.run(address, command, write=write or said.extend, given=given))
    return status, said[-4096:].decode(errors="replace").strip()


def _io(process: GuestProcess) -> IO[bytes]:
    return cast(IO[bytes], process)
