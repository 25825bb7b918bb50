"""Python packages that Debian has not: one wheel each, by version and digest, from PyPI."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from image.errors import BuildError
from image.tree import File, Tree, matches


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        name: The package's name on PyPI.
        version: Its version.
        file: The wheel's file name.
        sha256: Its digest, in hexadecimal.
        keep: Patterns of the paths in it that the root gets.
    """

    name: str
    version: str
    file: str
    sha256: str
    keep: tuple[str, ...]


def fetch(wheel: Wheel, directory: Path, say: Callable[[str], None]) -> Path:
    """The wheel's file, downloaded if it is not there; by pip, so that a mirror that pip knows serves here too.

    Raises:
        BuildError: It cannot be downloaded, or has another digest.
    """
    path = directory / wheel.file
    if not _is_here(path, wheel):
        say(f"{wheel.name} {wheel.version}, from PyPI")
        directory.mkdir(parents=True, exist_ok=True)
        wanted = directory / f"{wheel.name}.txt"
        wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes")
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            "--dest",
            directory,
            "--requirement",
            wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not _is_here(path, wheel):
            raise BuildError(
                f"{wheel.file} cannot be had: {done.stderr.strip()}", "is PyPI, or pip's mirror, within reach?"
            )
    return path


def read(path: Path, patterns: Iterable[str], place: str) -> Tree:
    """The files of a wheel whose paths match, below a directory of the root.

    Raises:
        BuildError: It is no wheel.
    """
    patterns = tuple(patterns)
    tree = Tree()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith("/") and any(matches(name, pattern) for pattern in patterns):
                    tree.add(f"{place}/{name}", File(archive.read(name)))
    except (OSError, zipfile.BadZipFile) as error:
        raise BuildError(f"cannot read {path}: {error}", "remove it and build again") from error
    return tree


def _is_here(path: Path, wheel: Wheel) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256
    except FileNotFoundError:
        return False
