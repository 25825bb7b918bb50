"""Guest memory."""

from __future__ import annotations

from dataclasses import dataclass

from kata_qemu.parts import Backend, Part

MIB = 1 << 20
RAM = "ram"


@dataclass(frozen=True, slots=True)
class Ram:
    """The memory at boot: an anonymous file that virtiofsd and other vhost-user programs map too.

    Attributes:
        size: In MiB.
    """

    size: int

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (Backend("memory-backend-memfd", RAM, {"size": self.size * MIB, "share": True}),)
