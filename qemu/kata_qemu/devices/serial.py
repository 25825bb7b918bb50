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
        others: Further ports of the agent's on the same controller: names and descriptors.
    """

    name: str
    descriptor: int
    place: Place
    others: tuple[tuple[str, int], ...] = ()

    def parts(self) -> tuple[Part, ...]:
        """As `Device.parts`; port 0 of a controller is left to a console."""
        ports = {"agent": (self.name, self.descriptor)}
        ports |= {f"agent-port{number}": port for number, port in enumerate(self.others)}
        sockets = [SocketChardev(f"{id}-socket", descriptor, listening=True) for id, (_, descriptor) in ports.items()]
        return (
            *sockets,
            self.place.device("virtio-serial", "serial", {"max_ports": len(ports) + 1}),
            *(_port(id, number, name) for number, (id, (name, _)) in enumerate(ports.items(), 1)),
        )


def _port(id: str, number: int, name: str) -> Frontend:
    properties: Properties = {"bus": "serial.0", "nr": number, "name": name, "chardev": f"{id}-socket"}
    return Frontend("virtserialport", id, properties)
