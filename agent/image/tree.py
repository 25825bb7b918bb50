"""A file system as a value: paths and what is there, without owners and times, which are root and the epoch.

Source of the cpio form: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
"""

from __future__ import annotations

import fnmatch
import posixpath
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from image.errors import BuildError

_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")  # top directories whose content lies in usr/


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, with its permissions."""

    mode: int = 0o755


Node = File | Link | Directory


@dataclass(slots=True)
class Tree:
    """Nodes by path, relative to the root and without a leading slash. Parents come into being by themselves."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def add(self, path: str, node: Node) -> None:
        """Put a node at a path, in place of what was there."""
        self.nodes[path] = node
        while (path := posixpath.dirname(path)) and path not in self.nodes:
            self.nodes[path] = Directory()

    def update(self, other: Tree) -> None:
        """Put another tree's nodes in."""
        for path, node in other.items():
            self.add(path, node)

    def remove(self, path: str) -> None:
        """Take a path away, with all below it."""
        for each in [each for each in self.nodes if each == path or each.startswith(f"{path}/")]:
            del self.nodes[each]

    def items(self) -> Iterator[tuple[str, Node]]:
        """All paths and nodes, each directory before what it holds."""
        yield from sorted(self.nodes.items(), key=lambda item: item[0].split("/"))

    def file(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            BuildError: There is none at that path.
        """
        node = self.nodes.get(path)
        if not isinstance(node, File):
            raise BuildError(f"no package has /{path}", "see the packages in the recipe")
        return node.data

    def matching(self, patterns: Iterable[str]) -> Tree:
        """What lies at paths of those patterns; `**` at the end is everything below."""
        tree = Tree()
        patterns = tuple(patterns)
        for path, node in self.nodes.items():
            if any(matches(path, pattern) for pattern in patterns):
                tree.add(path, node)
        return tree

    def trail(self, path: str) -> Iterator[tuple[str, Node]]:
        """What is at a path, and while that is a link, what it leads to."""
        while (node := self.nodes.get(path)) is not None:
            yield path, node
            if not isinstance(node, Link):
                return
            path = _merged(posixpath.normpath(posixpath.join("/", posixpath.dirname(path), node.target)).lstrip("/"))

    def write(self, root: Path) -> None:
        """Write everything into a directory; directories may be there, files may not."""
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        for path, node in self.items():
            place = root / path
            match node:
                case File(data, executable):
                    place.write_bytes(data)
                    place.chmod(0o755 if executable else 0o644)
                case Link(target):
                    place.symlink_to(target)
                case Directory(mode):
                    place.mkdir(exist_ok=True)
                    place.chmod(mode)

    def cpio(self) -> bytes:
        """The tree as an archive that the kernel unpacks; the same tree gives the same bytes."""
        archive = bytearray()
        for number, (path, node) in enumerate(self.items(), 1):
            archive += _entry(number, path, node)
        archive += _entry(0, "TRAILER!!!", None)
        return bytes(archive) + bytes(-len(archive) % 512)


def read_package(package: Path, patterns: Iterable[str]) -> Tree:
    """The files of a Debian package whose paths match, moved into usr/ where Debian 12 has them.

    Raises:
        BuildError: The package cannot be read.
    """
    patterns = tuple(patterns)
    tree = Tree()
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
                for member in archive:
                    path = _merged(posixpath.normpath(member.name))
                    if not any(matches(path, pattern) for pattern in patterns):
                        continue
                    if member.issym():
                        tree.add(path, Link(member.linkname))
                    elif member.isreg() and (content := archive.extractfile(member)):
                        tree.add(path, File(content.read(), bool(member.mode & 0o111)))
        except tarfile.TarError as error:
            raise BuildError(f"cannot read {package}: {error}", "remove it and build again") from error
    if unpacking.returncode:
        raise BuildError(f"dpkg-deb cannot read {package}", "remove it and build again")
    return tree


def matches(path: str, pattern: str) -> bool:
    """Whether a path has the pattern's form; `*` stays within a name, `**` at the end is everything below."""
    if pattern.endswith("/**"):
        return path.startswith(pattern[:-2])
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/")[0] in _MERGED else path


def _entry(number: int, path: str, node: Node | None) -> bytes:
    data = b""
    match node:
        case File(data, executable):
            mode = stat.S_IFREG | (0o755 if executable else 0o644)
        case Link(target):
            mode, data = stat.S_IFLNK | 0o777, target.encode()
        case Directory(permissions):
            mode = stat.S_IFDIR | permissions
        case None:
            mode = 0
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + name
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
