"""The kernel's device mapper, by its ioctls: a disk that encrypts what is written and keeps it on another one.

The key is drawn anew for each and given to the kernel, which alone has it: whoever has the disk later has nothing.
Source: Linux `include/uapi/linux/dm-ioctl.h`, `Documentation/admin-guide/device-mapper/dm-crypt.rst`.
"""

from __future__ import annotations

import enum
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from kata_caa.errors import AdaptorError

CONTROL: Final = Path("/dev/mapper/control")
"""Where the kernel takes requests."""

SECTOR: Final = 512
"""Bytes: what the mapper counts in, whatever the disk does."""

KEY_LENGTH: Final = 64
"""Bytes of a key: two of AES-256, as XTS wants."""

_CIPHER = b"aes-xts-plain64"
_VERSION = (4, 0, 0)  # of the interface: what is asked for here has been in it from the first
_HEADER = struct.Struct("=3I 2I I i 3I Q 128s 129s 7x")  # struct dm_ioctl
_DEVICE = 10  # place of the device's number among its values
_TARGET = struct.Struct("=QQ i I 16s")  # struct dm_target_spec
_ROOM = 2048  # bytes of a request: of more than 1024 Python makes no copy on the way to the kernel
_SECURE = 1 << 15  # DM_SECURE_DATA_FLAG: the kernel wipes its copies of the request
_UUID = "CRYPT-PLAIN-"  # as libcryptsetup begins those of its own
_DIGITS = b"0123456789abcdef"


class MapperError(AdaptorError):
    """The kernel does not make the device; says what it refused, and why."""


class Command(enum.IntEnum):
    """What is asked for."""

    CREATE = 3
    REMOVE = 4
    RESUME = 6  # DM_DEV_SUSPEND, without its flag
    LOAD = 9

    @property
    def number(self) -> int:
        """That of the ioctl, which reads and writes a header."""
        return 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | self


def encrypt(name: str, disk: Path, sectors: int, control: Path = CONTROL) -> Path:
    """Make a disk that keeps on another one what it is given, encrypted with a key of its own.

    Args:
        name: What the mapper calls it.
        disk: The other one.
        sectors: How many of it, from its beginning.
        control: Where the kernel takes requests.

    Returns:
        The new disk.

    Raises:
        MapperError: The kernel does not do it; nothing of it is left then.
    """
    try:
        mapper = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MapperError(f"the kernel has no device mapper: {control}: {error.strerror}") from error
    key = bytearray(KEY_LENGTH)
    try:
        number = _HEADER.unpack_from(_ask(mapper, Command.CREATE, request(name, uuid=f"{_UUID}{name}")))[_DEVICE]
        try:
            draw(key)
            _ask(mapper, Command.LOAD, table(name, disk, sectors, key))
            _ask(mapper, Command.RESUME, request(name))
        except MapperError:
            with suppress(MapperError):
                _ask(mapper, Command.REMOVE, request(name))
            raise
    finally:
        _wipe(key)
        os.close(mapper)
    return Path(f"/dev/dm-{os.minor(number)}")


def draw(key: bytearray) -> None:
    """Fill a key with random bytes of the kernel's, in place: what Python holds of it can be wiped.

    Raises:
        MapperError: The kernel gives none.
    """
    os.getrandom(1)  # waits until there is enough to draw from, early in a boot
    try:
        with open("/dev/urandom", "rb", buffering=0) as source:  # noqa: PTH123 no buffer that keeps a copy
            drawn = source.readinto(key)
    except OSError as error:
        raise MapperError(f"/dev/urandom: {error.strerror}") from error
    if drawn != len(key):
        raise MapperError("/dev/urandom gives too few bytes")


def request(name: str, *, uuid: str = "", flags: int = 0, targets: int = 0) -> bytearray:
    """A request of the mapper.

    Args:
        name: Of the device.
        uuid: What else it is called, when it is made.
        flags: As `dm-ioctl.h` has them.
        targets: How many stand after the header.
    """
    data = bytearray(_ROOM)
    _HEADER.pack_into(
        data, 0, *_VERSION, len(data), _HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), uuid.encode()
    )
    return data


def table(name: str, disk: Path, sectors: int, key: bytearray) -> bytearray:
    """The request that tells a device what it is made of: all of it is one encrypted range.

    Args:
        name: Of the device.
        disk: Where what it is given is kept.
        sectors: How many.
        key: With which.
    """
    data = request(name, flags=_SECURE, targets=1)
    _TARGET.pack_into(data, _HEADER.size, 0, sectors, 0, 0, b"crypt")
    before, after = _CIPHER + b" ", f" 0 {disk} 0".encode()  # no offset, neither of initial vectors nor of sectors
    at = _HEADER.size + _TARGET.size
    data[at : at + len(before)] = before
    at += len(before)
    for byte in key:  # not by hex(), whose text would stay
        data[at], data[at + 1] = _DIGITS[byte >> 4], _DIGITS[byte & 15]
        at += 2
    data[at : at + len(after)] = after  # and a zero, of which there are many
    return data


def _ask(mapper: int, command: Command, data: bytearray) -> bytearray:
    """Have the kernel do it; returns its answer, which is in the same place."""
    try:
        fcntl.ioctl(mapper, command.number, data)
    except OSError as error:
        raise MapperError(f"the device mapper refuses {command.name}: {error.strerror}") from error
    finally:
        if command is Command.LOAD:
            _wipe(data)
    return data


def _wipe(data: bytearray) -> None:
    data[:] = bytes(len(data))
