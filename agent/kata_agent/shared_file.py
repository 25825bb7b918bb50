"""Files that the host sends piece by piece: CopyFile's work, confined to the directory of shared files.

Every path is resolved by the kernel with that directory as its root, and what is made is made by a name in an
open directory, never by a path: no link, not even one that a container swaps in meanwhile, leads out.
Source: kata-containers' `src/agent/src/rpc.rs`, `do_copy_file`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kata_agent import linux
from kata_agent.errors import AgentError, InvalidArgument

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import CopyFileRequest

ROOT = "/run/kata-containers/shared/containers"
REMOVED = -1  # the size of a file that is to be removed: ours; to upstream's agent it is a file without an end

_ROOT_MODE = 0o750
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(request: CopyFileRequest, root: str = ROOT) -> None:
    """Make a directory or link, write one piece of a regular file, or remove what is there.

    A file is collected beside its place, under a name of its own, and put there when it is complete: who reads
    the place meanwhile finds what was there before. Pieces come in order; one may be sent again.

    Args:
        request: What the host sends.
        root: The directory that nothing leaves.

    Raises:
        InvalidArgument: A negative size or offset, or a kind of file that is not sent.
        AgentError: The path is not below the root, or a piece does not fit to those before it.
        OSError: The kernel refuses.
    """
    if request.offset < 0 or request.file_size < REMOVED:
        raise InvalidArgument(f"{request.path}: not a piece of a file: {request.offset=}, {request.file_size=}")
    *parents, name = _names(request.path, root)
    kind = stat.S_IFMT(request.file_mode) or stat.S_IFREG
    if request.file_size == REMOVED:
        _remove(parents, name, root)
        return
    os.makedirs(root, _ROOT_MODE, exist_ok=True)  # noqa: PTH103 a string serves
    with (
        _opened(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top,
        _opened(_directory(top, parents, request)) as parent,
    ):
        if kind == stat.S_IFDIR:
            _make_directory(parent, name, request)
        elif kind == stat.S_IFLNK:
            _make_link(parent, name, request)
        elif kind == stat.S_IFREG:
            _write(parent, name, request)
        else:
            raise InvalidArgument(f"{request.path}: neither file, directory nor link: mode {request.file_mode:o}")


def _remove(parents: list[str], name: str, root: str) -> None:
    """Remove a file, link or tree; what is not there is removed already."""
    with contextlib.suppress(FileNotFoundError):
        with _opened(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            directory = linux.open_in_root(top, "/".join(parents) or ".", os.O_PATH | os.O_DIRECTORY)
        with _opened(directory):
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                import shutil

                shutil.rmtree(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)


def _names(path: str, root: str) -> list[str]:
    below = path.removeprefix(f"{root}/")
    names = [name for name in below.split("/") if name not in ("", ".")]
    if below == path or not names or ".." in names:
        raise AgentError(f"path {path!r} is not below {root}")
    return names


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _directory(top: int, names: list[str], request: CopyFileRequest) -> int:
    """Descriptor of the directory below the root; those missing are made, and the last of them given its owner."""
    directory = linux.open_in_root(top, ".", os.O_PATH | os.O_DIRECTORY)
    try:
        for depth, name in enumerate(names, 1):
            path = "/".join(names[:depth])
            made = False
            try:
                following = linux.open_in_root(top, path, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):  # another request's, or a link to nowhere
                    os.mkdir(name, 0o700, dir_fd=directory)
                    made = True
                following = linux.open_in_root(top, path, os.O_PATH | os.O_DIRECTORY)
            os.close(directory)
            directory = following
            if made:
                os.chmod(_itself(directory), request.dir_mode & 0o777)  # noqa: PTH101 a descriptor's
            if depth == len(names):
                os.chown(_itself(directory), request.uid, request.gid)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _itself(fd: int) -> str:
    """A path by which calls that take no O_PATH descriptor reach it."""
    return f"/proc/self/fd/{fd}"


def _make_directory(parent: int, name: str, request: CopyFileRequest) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)
    with _opened(os.open(name, _PATH, dir_fd=parent)) as directory:
        os.chown(_itself(directory), request.uid, request.gid)
        os.chmod(_itself(directory), request.file_mode & 0o7777)  # noqa: PTH101 after chown, which clears bits


def _make_link(parent: int, name: str, request: CopyFileRequest) -> None:
    """Made beside and renamed, so that who follows the link finds the old or the new."""
    beside = _beside(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=parent)
    os.symlink(request.data, os.fsencode(beside), dir_fd=parent)
    os.chown(beside, request.uid, request.gid, dir_fd=parent, follow_symlinks=False)
    _replace(parent, beside, name)


def _write(parent: int, name: str, request: CopyFileRequest) -> None:
    end = request.offset + len(request.data)
    beside = _beside(name)
    if end > request.file_size:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=parent)
        raise AgentError(f"{request.path}: {end} bytes were sent of a file of {request.file_size}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if request.offset else os.O_TRUNC)
    with _opened(os.open(beside, flags, 0o600, dir_fd=parent)) as file:
        there = os.fstat(file).st_size
        if request.offset > there:
            raise AgentError(f"{request.path}: the piece at {request.offset} does not follow the {there} bytes before")
        rest = memoryview(request.data)
        while rest:
            rest = rest[os.pwrite(file, rest, end - len(rest)) :]
        if max(there, end) < request.file_size:
            return
        os.fchown(file, request.uid, request.gid)
        os.fchmod(file, request.file_mode & 0o7777)
    _replace(parent, beside, name)


def _replace(parent: int, beside: str, name: str) -> None:
    try:
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        import shutil

        shutil.rmtree(name, dir_fd=parent)
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)


def _beside(name: str) -> str:
    """The name under which a file is collected: one for each, and never too long."""
    import hashlib

    return f".{hashlib.sha256(name.encode()).hexdigest()}.tmp"
