"""What can become an installed version: a bundle of `make package`, or the tree that it unpacks to."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_py.install.errors import InstallError
from kata_py.install.handler import HOME, SHIM

TAR_TIMEOUT = 300.0  # seconds; a bundle is unpacked in two

_TOP = "kata"  # the one directory in a bundle
_INFO = "kata_py-*.dist-info"
_GUEST = "share/guest/manifest.json"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a tree is.

    Attributes:
        version: Its version.
        digest: Of the lists of what is in it: two builds of one version differ in it.
    """

    version: str
    digest: str


def identify(tree: Path) -> Identity:
    """What an unpacked tree is.

    Raises:
        InstallError: It is no tree of ours.
    """
    found = sorted((tree / "lib").glob(_INFO))
    if len(found) != 1:
        raise InstallError(
            f"{tree} is no tree of kata-py: there is no lib/{_INFO} in it", "give what `make package` made"
        )
    version = found[0].name.removeprefix("kata_py-").removesuffix(".dist-info")
    if not _VERSION.fullmatch(version):
        raise InstallError(f"{tree} is of a version that is none: {version!r}")
    lists = (path.read_bytes() if path.is_file() else b"" for path in (found[0] / "RECORD", tree / _GUEST))
    return Identity(version, hashlib.sha256(b"\0".join(lists)).hexdigest())


@contextlib.contextmanager
def peeked(source: Path) -> Iterator[Identity]:
    """What a bundle or tree is, without unpacking all of it. Blocks.

    Raises:
        InstallError: It is neither.
    """
    if source.is_dir():
        yield identify(source)
        return
    with tempfile.TemporaryDirectory(prefix="kata-ctl-") as name:
        _unpack(source, Path(name), f"{_TOP}/lib/{_INFO}/RECORD", f"{_TOP}/{_GUEST}")
        yield identify(Path(name))


def fill(source: Path, tree: Path, final: Path) -> None:
    """Have a version's tree at a new place, whole and on the disk.

    Args:
        source: The bundle or tree.
        tree: Where it goes; must not be there.
        final: Where it will be used: its configuration names files below that.

    Raises:
        InstallError: The source cannot be unpacked.
        OSError: There is no room.
    """
    if source.is_dir():
        shutil.copytree(source, tree, symlinks=True)
    else:
        tree.mkdir()
        _unpack(source, tree)
    if not (tree / "bin" / SHIM).is_file():
        raise InstallError(f"{source} has no bin/{SHIM}", "give what `make package` made")
    configuration = tree / "share" / "configuration.toml"
    if configuration.exists():
        places = "|".join(re.escape(str(place)) for place in (source.absolute(), HOME))
        text = re.sub(f'"(?:{places})/', lambda _: f'"{final}/', configuration.read_text())
        configuration.write_text(text)
    _run(["sync", "--file-system", str(tree)])


def _unpack(bundle: Path, place: Path, *members: str) -> None:
    if not bundle.is_file():
        raise InstallError(f"there is no bundle and no tree at {bundle}")
    command = ["tar", "--extract", "--use-compress-program=zstd", f"--file={bundle}", f"--directory={place}"]
    command += ["--strip-components=1", "--no-same-owner", "--wildcards", *members]
    _run(command)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=TAR_TIMEOUT
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        raise InstallError(
            f"{command[0]}: {lines[0]}", "is it a bundle of `make package`, and is zstd installed?"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{command[0]}: {error}") from error
