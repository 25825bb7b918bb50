"""Virtual sockets between host and guest."""

from __future__ import annotations

from dataclasses import dataclass

from kata_qemu.bus import Place
from kata_qemu.parts import Part, SocketChardev


@dataclass(frozen=True, slots=True)
class Vsock:
    """A vsock device of the host's kernel.

    Attributes:
        descriptor: `/dev/vhost-vsock`, inherited; the context id is claimed on it.
        cid: The context id.
        place: Where it sits.
    """

    descriptor: int
    cid: int
    place: Place

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (self.place.device("vhost-vsock", "vsock", {"vhostfd": self.descriptor, "guest-cid": self.cid}),)


@dataclass(frozen=True, slots=True)
class HybridVsock:
    """A vsock device of a program that offers its ports on a Unix socket. The guest's memory must be shared.

    Attributes:
        descriptor: A socket connected to the program, inherited.
        place: Where it sits.
    """

    descriptor: int
    place: Place

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (
            SocketChardev("vsock-socket", self.descriptor),
            self.place.device("vhost-user-vsock", "vsock", {"chardev": "vsock-socket"}),
        )
