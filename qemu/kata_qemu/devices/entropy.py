"""Random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_qemu.bus import Place
from kata_qemu.parts import Backend, Part


@dataclass(frozen=True, slots=True)
class RandomNumbers:
    """A virtio-rng that takes its bytes from a device of the host.

    Attributes:
        source: The device.
        place: Where it sits.
    """

    source: Path
    place: Place

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (
            Backend("rng-random", "entropy", {"filename": self.source}),
            self.place.device("virtio-rng", "rng", {"rng": "entropy"}),
        )
