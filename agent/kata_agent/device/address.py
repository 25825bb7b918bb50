"""How devices are named between host and guest: PCI addresses and paths, CCW, SCSI, AP.

A guest PCI path is the way from the root to the device, a slot for each bus, because the host cannot know the
numbers that the guest gives to its buses. Source: kata-containers' `src/agent/src/{pci,ccw,ap}.rs` for the forms.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kata_agent.errors import InvalidArgument

_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])", re.IGNORECASE)
_SLOT = re.compile(r"([0-9a-f]{1,2})(?:\.([0-7]))?", re.IGNORECASE)
_CCW = re.compile(r"0\.([0-3])\.([0-9a-f]{1,4})", re.IGNORECASE)
_SCSI = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")
_AP = re.compile(r"([0-9a-f]{1,2})\.([0-9a-f]{1,4})", re.IGNORECASE)

_SLOTS = 0x20  # on a bus


def pci_address(text: str) -> str:
    """An address `0000:01:00.0`, in lower case.

    Raises:
        InvalidArgument: It has not that form.
    """
    if not _ADDRESS.fullmatch(text):
        raise InvalidArgument(f"PCI address {text!r} should have the format DDDD:BB:SS.F")
    return text.lower()


class PciPath(NamedTuple):
    """Where a PCI device sits.

    Attributes:
        bus: Number of the root bus.
        functions: Slot and function (`02.0`) on each bus on the way, the device's own last.
    """

    bus: int
    functions: tuple[str, ...]

    def __str__(self) -> str:
        root = (f"{self.bus:02x}",) if self.bus else ()
        return "/".join((*root, *self.functions))

    @classmethod
    def parse(cls, text: str) -> PciPath:
        """Read `02`, `02/00`, `02.1/00`; a first segment that no slot can have, `20/00/02`, is another root's bus.

        Raises:
            InvalidArgument: It has none of these forms.
        """
        numbers = []
        for segment in text.split("/"):
            match = _SLOT.fullmatch(segment)
            if match is None:
                raise InvalidArgument(f"PCI path {text!r}: {segment!r} should have the format SS or SS.F")
            numbers.append((int(match[1], 16), int(match[2] or "0")))
        bus = 0
        if numbers[0][0] >= _SLOTS and len(numbers) > 1 and numbers[0][1] == 0:
            bus = numbers.pop(0)[0]
        for slot, _ in numbers:
            if slot >= _SLOTS:
                raise InvalidArgument(f"PCI path {text!r}: slot {slot:#x} should be in range [0..0x1f]")
        return cls(bus, tuple(f"{slot:02x}.{function}" for slot, function in numbers))


def ccw_bus_id(text: str) -> str:
    """A channel device's id, `0.0.0003`, with all its digits.

    Raises:
        InvalidArgument: It has not the form `0.<set>.<device>`.
    """
    match = _CCW.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"CCW device {text!r} should have the format 0.<subchannel set>.<device number>")
    return f"0.{match[1]}.{int(match[2], 16):04x}"


class ScsiAddress(NamedTuple):
    """A disk of a SCSI host with one bus: target and logical unit."""

    target: int
    lun: int

    def __str__(self) -> str:
        return f"{self.target}:{self.lun}"

    @classmethod
    def parse(cls, text: str) -> ScsiAddress:
        """Read `id:lun`, in decimal.

        Raises:
            InvalidArgument: It has not that form.
        """
        match = _SCSI.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"SCSI address {text!r} should have the format SCSI-id:LUN")
        return cls(int(match[1]), int(match[2]))


class ApQueue(NamedTuple):
    """A queue of a crypto adapter (s390x)."""

    adapter: int
    domain: int

    def __str__(self) -> str:
        return f"{self.adapter:02x}.{self.domain:04x}"

    @classmethod
    def parse(cls, text: str) -> ApQueue:
        """Read `xx.yyyy`, in hexadecimal.

        Raises:
            InvalidArgument: It has not that form.
        """
        match = _AP.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"AP queue {text!r} should have the format xx.yyyy")
        return cls(int(match[1], 16), int(match[2], 16))
