"""Guest memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_qemu.parts import Backend, Part, Scalar

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
        """As `Device.parts`. Huge pages are taken at once: a guest that found none left later would be killed."""
        properties: dict[str, Scalar] = {"size": self.size * MIB, "share": True}
        if self.huge_pages:
            properties["hugetlb"] = True
        if self.huge_pages or self.preallocated:
            properties["prealloc"] = True
        return (Backend("memory-backend-memfd", RAM, properties),)


def free_huge_pages(root: Path = Path("/")) -> int:
    """How much memory the host has left in huge pages of their default size, in MiB. Source: proc(5), `meminfo`."""
    values = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        values[name] = int(value.split()[0])
    pages = values.get("HugePages_Free", 0) - values.get("HugePages_Rsvd", 0)
    return pages * values.get("Hugepagesize", 0) // 1024
