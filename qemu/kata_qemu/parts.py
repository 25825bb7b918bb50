"""QEMU's building blocks as values: each is rendered for the command line and for QMP from one description.

Source: QEMU `qemu-options.hx` and `qapi/{qdev,qom,char,block-core}.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

Scalar = bool | int | str | Path
Properties = Mapping[str, "Scalar | Properties"]


@dataclass(frozen=True, slots=True)
class Command:
    """A QMP command with its arguments."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


class Part(Protocol):
    """A piece of a machine."""

    def option(self) -> tuple[str, str]:
        """The command line's option and its value."""

    def addition(self) -> Command:
        """The QMP command that adds it to a running machine."""

    def removal(self) -> Command:
        """The QMP command that takes it out again."""


@dataclass(frozen=True, slots=True)
class _Typed:
    """What most parts have in common: a type, an id, and properties; only the words differ."""

    OPTION: ClassVar[str]
    ADD: ClassVar[str]
    REMOVE: ClassVar[str]
    TYPE: ClassVar[str]
    ID: ClassVar[str] = "id"

    type: str
    id: str
    properties: Properties = field(default_factory=dict)

    def option(self) -> tuple[str, str]:
        """As `Part.option`."""
        return self.OPTION, words(self.type, {self.ID: self.id, **self.properties})

    def addition(self) -> Command:
        """As `Part.addition`."""
        return Command(self.ADD, {self.TYPE: self.type, self.ID: self.id, **_json(self.properties)})

    def removal(self) -> Command:
        """As `Part.removal`."""
        return Command(self.REMOVE, {self.ID: self.id})


class Frontend(_Typed):
    """A device that the guest sees. Its removal only asks the guest; the event `DEVICE_DELETED` tells the end."""

    OPTION, ADD, REMOVE, TYPE = "-device", "device_add", "device_del", "driver"


class Backend(_Typed):
    """An object of the host's side, such as memory."""

    OPTION, ADD, REMOVE, TYPE = "-object", "object-add", "object-del", "qom-type"


class BlockNode(_Typed):
    """A disk's content."""

    OPTION, ADD, REMOVE, TYPE, ID = "-blockdev", "blockdev-add", "blockdev-del", "driver", "node-name"


@dataclass(frozen=True, slots=True)
class SocketChardev:
    """A byte stream over a Unix socket.

    Attributes:
        id: Its name.
        place: The path to connect to, or an inherited descriptor.
        listening: Whether the descriptor listens; QEMU then serves one peer at a time and waits for none.
    """

    id: str
    place: Path | int
    listening: bool = False

    def option(self) -> tuple[str, str]:
        """As `Part.option`."""
        place: Properties = {"path" if isinstance(self.place, Path) else "fd": self.place}
        server: Properties = {"server": True, "wait": False} if self.listening else {}
        return "-chardev", words("socket", {"id": self.id, **place, **server})

    def addition(self) -> Command:
        """As `Part.addition`."""
        if isinstance(self.place, Path):
            address: Properties = {"type": "unix", "data": {"path": self.place}}
        else:
            address = {"type": "fd", "data": {"str": str(self.place)}}
        server: Properties = {"server": True, "wait": False} if self.listening else {"server": False}
        backend: Properties = {"type": "socket", "data": {"addr": address, **server}}
        return Command("chardev-add", {"id": self.id, "backend": _json(backend)})

    def removal(self) -> Command:
        """As `Part.removal`."""
        return Command("chardev-remove", {"id": self.id})


@dataclass(frozen=True, slots=True)
class TapBackend:
    """The host's side of a network interface: a tap device whose queues are open already.

    Attributes:
        id: Its name.
        taps: A descriptor for each queue: inherited, or lent by their names before it is added to a running machine.
        vhosts: As many of vhost-net, or none.
    """

    id: str
    taps: tuple[int, ...]
    vhosts: tuple[int, ...] = ()

    def option(self) -> tuple[str, str]:
        """As `Part.option`."""
        return "-netdev", words("tap", {"id": self.id, **self._queues(self.taps, self.vhosts)})

    def addition(self) -> Command:
        """As `Part.addition`; the names of `lent` must be known to QEMU."""
        names = list(self.lent)
        queues = self._queues(names[: len(self.taps)], names[len(self.taps) :])
        return Command("netdev_add", {"type": "tap", "id": self.id, **_json(queues)})

    def removal(self) -> Command:
        """As `Part.removal`."""
        return Command("netdev_del", {"id": self.id})

    @property
    def lent(self) -> dict[str, int]:
        """The descriptors by name; QEMU takes a name that begins with a digit for a number."""
        queues = [*(("tap", number, fd) for number, fd in enumerate(self.taps))]
        queues += [("vhost", number, fd) for number, fd in enumerate(self.vhosts)]
        return {f"{self.id}-{kind}{number}": fd for kind, number, fd in queues}

    def _queues(self, taps: Sequence[int | str], vhosts: Sequence[int | str]) -> Properties:
        vhost: Properties = {"vhost": True, "vhostfds": ":".join(map(str, vhosts))} if vhosts else {}
        return {"fds": ":".join(map(str, taps)), **vhost}


def words(first: str, properties: Properties) -> str:
    """QEMU's `first,key=value,...`: nested keys dotted, switches as on and off, commas in values doubled."""
    return ",".join([first, *(f"{key}={_text(value)}" for key, value in _flat(properties))])


def _flat(properties: Properties, prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in properties.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")


def _json(properties: Properties) -> dict[str, object]:
    return {
        key: _json(value) if isinstance(value, Mapping) else str(value) if isinstance(value, Path) else value
        for key, value in properties.items()
    }
