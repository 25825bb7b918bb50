"""Files of the host that a pod may name: as they really are, and only those that are listed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

_WILDCARD = re.compile(r"[*?\[]")


class PathError(ValueError):
    """A path that is not to be used; the text completes "/the/path ..."."""


def real_file(path: str) -> Path:
    """The file that a path leads to, with every link followed, so that what was checked is what is used.

    Args:
        path: An absolute path, in its shortest form.

    Raises:
        PathError: It is of another form, or leads to nothing, or to a directory.
    """
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise PathError("is not an absolute path in its shortest form")
    if not path.isprintable():
        raise PathError("has characters that no path of this kind needs")
    try:
        real = Path(path).resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise PathError(f"cannot be used: {getattr(error, 'strerror', None) or error}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise PathError("is neither a file nor a device")
    return real


def listed_file(path: str, globs: Iterable[str]) -> Path:
    """The file that a path leads to, if the list has the path and has what it leads to.

    A wildcard fits within one component only, so that it cannot cross into another directory, and a link that leads
    out of what the list names is not followed.

    Args:
        path: The path, as `real_file`.
        globs: The list. Links in the part before the first wildcard are the host's own, and followed.

    Raises:
        PathError: It is not listed, or as `real_file`.
    """
    globs = [glob for glob in globs if glob]
    real = real_file(path)
    if not any(_fits(path, glob) for glob in globs):
        raise PathError("is not listed")
    if not any(_fits(str(real), _resolved(glob)) for glob in globs):
        raise PathError(f"leads to {real}, which is not listed")
    return real


def _fits(path: str, glob: str) -> bool:
    parts, patterns = path.split("/"), glob.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _resolved(glob: str) -> str:
    """The expression with the links in its fixed part followed, which are escaped then: they are no wildcards."""
    parts = glob.split("/")
    fixed = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    head = os.path.realpath("/".join(parts[:fixed]) or "/").rstrip("/")
    return "/".join([re.sub(r"([*?\[])", r"[\1]", head), *parts[fixed:]])
