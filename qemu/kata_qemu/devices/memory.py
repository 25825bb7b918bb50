"""Guest memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kata_qemu.bus import Place
from kata_qemu.parts import Backend, Frontend, Part, Scalar

MIB = 1 << 20
RAM = "ram"


@dataclass(frozen=True, slots=True)
class Ram:
    """The memory at boot: an anonymous file that virtiofsd and other vhost-user programs map too.

    Attributes:
        size: In MiB.
        huge_pages: Whether it comes from the host's huge pages, of their default size.
        preallocated: Whether all of it is taken at once.
    """

    size: int
    huge_pages: bool = False
    preallocated: bool = False

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (_file(RAM, self.size, huge_pages=self.huge_pages, preallocated=self.preallocated),)


def free_huge_pages(root: Path = Path("/")) -> int:
    """How much memory the host has left in huge pages of their default size, in MiB. Source: proc(5), `meminfo`."""
    values = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        values[name] = int(value.split()[0])
    pages = values.get("HugePages_Free", 0) - values.get("HugePages_Rsvd", 0)
    return pages * values.get("Hugepagesize", 0) // 1024


@dataclass(frozen=True, slots=True)
class Dimm:
    """A piece of memory plugged into a slot; like the memory at boot, its file is mapped by vhost-user programs too.

    Attributes:
        slot: The slot.
        size: In MiB.
        huge_pages: As `Ram.huge_pages`.
        preallocated: As `Ram.preallocated`.
    """

    slot: int
    size: int
    huge_pages: bool = False
    preallocated: bool = False

    @property
    def id(self) -> str:
        """Its name in QEMU."""
        return f"dimm{self.slot}"

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`. Source of the names: kata `virtcontainers/qemu.go`."""
        backend = f"mem{self.slot}"
        return (
            _file(backend, self.size, huge_pages=self.huge_pages, preallocated=self.preallocated),
            Frontend("pc-dimm", self.id, {"memdev": backend, "slot": self.slot}),
        )


@dataclass(frozen=True, slots=True)
class GrowingMemory:
    """Memory that the guest takes, and gives back, as it is asked: virtio-mem. Source: QEMU `docs`, `virtio-mem.c`.

    Attributes:
        size: MiB at most.
        place: Where it sits.
        huge_pages: As `Ram.huge_pages`.
        preallocated: Whether what the guest is given is taken from the host at once.
    """

    size: int
    place: Place
    huge_pages: bool = False
    preallocated: bool = False

    ID: ClassVar[str] = "virtiomem0"
    UNIT: ClassVar[int] = 4  # MiB that its size is a multiple of

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        device: dict[str, Scalar] = {"memdev": "virtiomem"}
        if self.huge_pages or self.preallocated:
            device["prealloc"] = True
        backend: dict[str, Scalar] = {"size": self.size * MIB, "share": True, "reserve": False}
        if self.huge_pages:
            backend["hugetlb"] = True
        return Backend("memory-backend-memfd", "virtiomem", backend), self.place.device("virtio-mem", self.ID, device)


def _file(id: str, size: int, *, huge_pages: bool, preallocated: bool) -> Backend:
    """Memory that is there at once. Huge pages are taken now: a guest that found none left later would be killed."""
    properties: dict[str, Scalar] = {"size": size * MIB, "share": True}
    if huge_pages:
        properties["hugetlb"] = True
    if huge_pages or preallocated:
        properties["prealloc"] = True
    return Backend("memory-backend-memfd", id, properties)
