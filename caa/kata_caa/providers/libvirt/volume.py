"""Volumes of a pool that is a directory: what a pool and a volume say of themselves, and how one is made and filled."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import binding
from kata_caa.providers.libvirt.binding import Connect, Pool, Stream, Volume

DIRECTORIES = ("dir", "fs", "netfs")  # pools whose volumes are files, which alone can be qcow2 with a backing file
CHUNK = 256 << 10  # bytes; libvirt's own limit of a message is a little above
_REFRESH_TIMEOUT = 10.0  # seconds for others' volumes to be made, meanwhile a pool is not read
_REFRESH_PAUSE = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A pool; sizes in bytes."""

    name: str
    kind: str
    directory: str
    capacity: int
    available: int

    def path(self, volume: str) -> str:
        """Where a volume of that name is."""
        return f"{self.directory.rstrip('/')}/{volume}"


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume; its capacity, what a machine sees of it, in bytes."""

    name: str
    path: str
    form: str
    capacity: int


def pool_facts(pool: Pool) -> PoolFacts:
    """Ask a pool."""
    top = ET.fromstring(pool.XMLDesc(0))
    return PoolFacts(
        top.findtext("name", ""), top.get("type", ""), top.findtext("target/path", ""),
        int(top.findtext("capacity", "0")), int(top.findtext("available", "0")),
    )  # fmt: skip


def volume_facts(volume: Volume) -> VolumeFacts:
    """Ask a volume; libvirt looks at the file anew."""
    top = ET.fromstring(volume.XMLDesc(0))
    form = top.find("target/format")
    return VolumeFacts(
        top.findtext("name", ""), top.findtext("target/path", ""),
        form.get("type", "raw") if form is not None else "raw", int(top.findtext("capacity", "0")),
    )  # fmt: skip


def find(pool: Pool, name: str) -> Volume | None:
    """A volume by its name, also one that was put in the directory behind libvirt's back."""
    for again in (True, False):
        try:
            return pool.storageVolLookupByName(name)
        except binding.Refused as error:
            if binding.code(error) != "VIR_ERR_NO_STORAGE_VOL":
                raise
        if again:
            refresh(pool)
    return None


def refresh(pool: Pool) -> None:
    """Have the pool's directory read again; waits a little while others' volumes are made.

    A blocking pause: there is no event of their end, and the thread is libvirt's.
    """
    deadline = time.monotonic() + _REFRESH_TIMEOUT
    while True:
        try:
            pool.refresh(0)
            return
        except binding.Refused as error:
            busy = "asynchronous jobs running" in binding.failure(error).message
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(_REFRESH_PAUSE)


def disk_xml(name: str, capacity: int, base: VolumeFacts) -> str:
    """A disk of a machine: what differs from its base."""
    top = _new(name, capacity, "qcow2")
    backing = ET.SubElement(top, "backingStore")
    ET.SubElement(backing, "path").text = base.path
    ET.SubElement(backing, "format", type=base.form)
    return ET.tostring(top, encoding="unicode")


def blob_xml(name: str, size: int, mode: str = "0600") -> str:
    """A volume of so many bytes of which none is there yet."""
    top = _new(name, size, "raw", mode)
    ET.SubElement(top, "allocation", unit="bytes").text = "0"
    return ET.tostring(top, encoding="unicode")


def _new(name: str, capacity: int, form: str, mode: str = "0600") -> ET.Element:
    top = ET.Element("volume", type="file")
    ET.SubElement(top, "name").text = name
    ET.SubElement(top, "capacity", unit="bytes").text = str(capacity)
    target = ET.SubElement(top, "target")
    ET.SubElement(target, "format", type=form)
    # libvirt gives the file to QEMU's user when the machine starts. User data has a private key, disks have pods' data.
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = mode
    return top


def fill(
    connect: Connect, volume: Volume, pieces: Iterable[bytes], length: int, offset: int = 0,
    sent: Callable[[int], None] = lambda size: None,
) -> None:  # fmt: skip
    """Write a part of a volume, of `length` bytes from `offset`; tells how much of it has gone."""
    stream = connect.newStream(0)
    volume.upload(stream, offset, length, 0)
    try:
        done = 0
        for piece in pieces:
            _send(stream, piece)
            done += len(piece)
            sent(done)
        stream.finish()
    except BaseException:
        _abort(stream)
        raise


def _send(stream: Stream, data: bytes) -> None:
    view = memoryview(data)
    while view:
        gone = stream.send(bytes(view[:CHUNK]))
        view = view[gone:]


def head(connect: Connect, volume: Volume, size: int) -> bytes:
    """The first bytes of a volume, as many."""
    return _part(connect, volume, 0, size)


def tail(connect: Connect, path: str, size: int) -> bytes:
    """The last bytes of a volume, up to as many."""
    volume = connect.storageVolLookupByPath(path)
    capacity = volume_facts(volume).capacity
    return _part(connect, volume, max(0, capacity - size), min(size, capacity))


def _part(connect: Connect, volume: Volume, offset: int, length: int) -> bytes:
    stream = connect.newStream(0)
    volume.download(stream, offset, length, 0)
    got = b""
    try:
        while piece := stream.recv(CHUNK):
            got += piece
        stream.finish()
    except BaseException:
        _abort(stream)
        raise
    return got


def _abort(stream: Stream) -> None:
    try:
        stream.abort()
    except binding.Refused:
        pass  # it has ended by itself; the cause is raised


def remove(connect: Connect, path: str) -> None:
    """Delete a volume by its path; what is not there is no error."""
    try:
        connect.storageVolLookupByPath(path).delete(0)
    except binding.Refused as error:
        if binding.code(error) != "VIR_ERR_NO_STORAGE_VOL":
            raise


def exists(connect: Connect, path: str) -> bool:
    """Whether a volume is there."""
    try:
        connect.storageVolLookupByPath(path)
    except binding.Refused as error:
        if binding.code(error) != "VIR_ERR_NO_STORAGE_VOL":
            raise
        return False
    return True


def usable(facts: PoolFacts) -> None:
    """Refuse a pool that cannot have machines' disks.

    Raises:
        ProviderError: It has no files.
    """
    if facts.kind not in DIRECTORIES:
        cause = f"pool {facts.name} is of type {facts.kind}, and cannot hold qcow2 disks"
        raise ProviderError(Fault.FATAL, cause, hint=f"set LIBVIRT_POOL to one of type {', '.join(DIRECTORIES)}")
