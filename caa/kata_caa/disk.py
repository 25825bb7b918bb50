"""A pod VM's disk as a file: what it is, its digest, and which of its blocks are more than zeros."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kata_caa.errors import DiskError

BLOCK = 512 << 10  # bytes; also what the EBS direct API takes at a time
RAW, QCOW2 = "raw", "qcow2"
MACHINES = ("x86_64", "aarch64", "s390x")

Progress = Callable[[int, int], None]
"""Told how many bytes are done, of how many."""

_QCOW2_MAGIC = b"QFI\xfb"
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk in a file.

    Attributes:
        path: The file.
        size: Its bytes.
        digest: Its SHA-256, in hexadecimal digits.
        form: `raw` or `qcow2`.
        blocks: The numbers of its blocks, of `BLOCK` bytes each, that are not all zeros; in order.
        machine: For which machines it is: `x86_64`, `aarch64` or `s390x`.
    """

    path: Path
    size: int
    digest: str
    form: str
    blocks: tuple[int, ...]
    machine: str = "x86_64"

    @property
    def payload(self) -> int:
        """The bytes of those blocks."""
        return sum(min(BLOCK, self.size - number * BLOCK) for number in self.blocks)

    def named(self, stem: str) -> str:
        """What an upload of it is called: the stem, and the beginning of the digest."""
        return f"{stem}-{self.digest[:12]}"


def examine(
    path: Path, machine: str = "x86_64", progress: Progress = lambda done, total: None, stop: Callable[[], bool] = bool
) -> Disk:
    """Read a disk from its beginning to its end. It blocks.

    Args:
        path: The file.
        machine: For which machines it is.
        progress: Told in the same thread how far it is.
        stop: Asked after each block whether to end; it ends with InterruptedError then.

    Raises:
        DiskError: It cannot be read, or is empty.
    """
    if machine not in MACHINES:
        raise DiskError(f"{machine!r} is no machine; there is: {', '.join(MACHINES)}")
    digest, blocks, size, head = hashlib.sha256(), [], 0, b""
    try:
        with path.open("rb", buffering=0) as file:
            total = os.fstat(file.fileno()).st_size
            for number, data in enumerate(_blocks(file.fileno(), total)):
                head = head or data[:4]
                digest.update(data)
                size += len(data)
                if data is not _ZEROS and data != _ZEROS[: len(data)]:
                    blocks.append(number)
                progress(size, total)
                if stop():
                    raise InterruptedError(errno.EINTR, "reading was cancelled", str(path))
    except InterruptedError:
        raise
    except OSError as error:
        raise DiskError(f"the disk cannot be read: {error}") from error
    if not blocks:
        raise DiskError(f"there is nothing on the disk {path}; make podvm builds one")
    return Disk(path, size, digest.hexdigest(), QCOW2 if head == _QCOW2_MAGIC else RAW, tuple(blocks), machine)


def read_block(file: int, number: int) -> bytes:
    """A block of an open file, filled up with zeros. It blocks.

    Args:
        file: The descriptor.
        number: The block's.

    Raises:
        OSError: It cannot be read.
    """
    return os.pread(file, BLOCK, number * BLOCK).ljust(BLOCK, b"\0")


def _blocks(file: int, size: int) -> Iterator[bytes]:
    """The blocks in order; those in holes without reading them."""
    data_from = 0
    for start in range(0, size, BLOCK):
        if data_from <= start:
            data_from = _next_data(file, start, size)
        length = min(BLOCK, size - start)
        if data_from >= start + length:
            yield _ZEROS if length == BLOCK else _ZEROS[:length]
            continue
        data = os.pread(file, length, start)
        if len(data) < length:
            raise OSError(errno.EIO, "the file became shorter")
        yield data


def _next_data(file: int, start: int, size: int) -> int:
    try:
        return os.lseek(file, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        return start  # a file system without holes
