"""Memory that the guest gives back."""

from __future__ import annotations

from dataclasses import dataclass

from kata_qemu.bus import Place
from kata_qemu.parts import Part


@dataclass(frozen=True, slots=True)
class Balloon:
    """A virtio-balloon that is never inflated: through it the guest reports which pages it has freed.

    Attributes:
        place: Where it sits.
    """

    place: Place

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (
            self.place.device("virtio-balloon", "balloon", {"deflate-on-oom": True, "free-page-reporting": True}),
        )  # fmt: skip
