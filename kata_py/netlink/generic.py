"""Generic netlink: parts of the kernel that have a name, and a number that it gives them when they are loaded.

Source: Linux `include/uapi/linux/genetlink.h`, `net/netlink/genetlink.c`.
"""

from __future__ import annotations

import struct
from typing import Final

from kata_py.netlink import wire
from kata_py.netlink.connection import Connection

_NETLINK_GENERIC: Final = 16
_CONTROL: Final = 16  # the number of the part that knows the others'
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2
_HEADER: Final = struct.Struct("=BBxx")  # command, version
_U16: Final = struct.Struct("=H")


class Generic(Connection):
    """A connection to the part of a name, whose module is loaded if need be.

    Args:
        family: The name.
        version: Of its messages.

    Raises:
        FileNotFoundError: The kernel has no such part.
        OSError: It has no generic netlink, among others.
    """

    def __init__(self, family: str, version: int = 1) -> None:
        super().__init__(_NETLINK_GENERIC)
        self._version = version
        try:
            self._family = self._number(family)
        except BaseException:
            self.close()
            raise

    def command(self, command: int, payload: bytes, subject: str) -> None:
        """Ask for a change.

        Args:
            command: What of, in the part's own numbers.
            payload: Attributes.
            subject: What is changed, for an error.
        """
        self.change(self._family, 0, _HEADER.pack(command, self._version) + payload, subject)

    def _number(self, family: str) -> int:
        name = wire.attribute(_CTRL_ATTR_FAMILY_NAME, family.encode() + b"\0")
        answer = self.ask(_CONTROL, _HEADER.pack(_CTRL_CMD_GETFAMILY, 1) + name, f"{family} (generic netlink)")
        number: int = _U16.unpack(wire.decode_attributes(answer[_HEADER.size :])[_CTRL_ATTR_FAMILY_ID])[0]
        return number
