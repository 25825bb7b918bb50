"""One module per kind of device: a frozen value that knows its parts, front end last."""

from __future__ import annotations

from typing import Protocol

from kata_qemu.parts import Part


class Device(Protocol):
    """A device of any kind."""

    def parts(self) -> tuple[Part, ...]:
        """What it is made of, in the order in which it is added; removed in reverse."""
