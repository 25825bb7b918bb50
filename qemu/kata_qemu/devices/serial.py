"""Consoles and ports: byte streams between host and guest."""

from __future__ import annotations

from dataclasses import dataclass

from kata_qemu.bus import Place
from kata_qemu.parts import Frontend, Part, Properties, SocketChardev


@dataclass(frozen=True, slots=True)
class ConsoleDevice:
    """The kernel's console on a listening socket.

    Attributes:
        driver: The machine's own serial device.
        descriptor: The socket, inherited.
    """

    driver: str
    descriptor: int

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        return (
            SocketChardev("console-socket", self.descriptor, listening=True),
            Frontend(self.driver, "console", {"chardev": "console-socket"}),
        )


@dataclass(frozen=True, slots=True)
class AgentPort:
    """A virtio-serial port for the agent, on a listening socket.

    Attributes:
        name: What the guest finds in `/sys/class/virtio-ports/*/name`.
        descriptor: The socket, inherited.
        place: Where the port's controller sits.
    """

    name: str
    descriptor: int
    place: Place

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`."""
        port: Properties = {"bus": "serial.0", "nr": 1, "name": self.name, "chardev": "agent-socket"}
        return (
            SocketChardev("agent-socket", self.descriptor, listening=True),
            self.place.device("virtio-serial", "serial", {"max_ports": 2}),
            Frontend("virtserialport", "agent", port),
        )
