"""Where a ttrpc peer is reached: addresses as frozen values, and their text form."""

from __future__ import annotations

from typing import NamedTuple


class AddressError(ValueError):
    """A text that is no address we know."""


class UnixAddress(NamedTuple):
    """A Unix socket: `unix:///path`, or `unix://@name` for the abstract namespace."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


class VsockAddress(NamedTuple):
    """A vsock port: `vsock://CID:PORT`; a listener's CID is -1 (any)."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock://{self.cid}:{self.port}"


class HybridVsockAddress(NamedTuple):
    """A vsock port behind a Unix socket of the VMM: `hvsock:///path:PORT`, handshake `CONNECT PORT`."""

    path: str
    port: int

    def __str__(self) -> str:
        return f"hvsock://{self.path}:{self.port}"


class SerialAddress(NamedTuple):
    """A byte stream without connections: `serial:///path` is the VMM's Unix socket on the host side, or a
    character device on the guest's; `virtio-serial://NAME` is the guest's port of that name."""

    path: str
    port_name: str = ""

    def __str__(self) -> str:
        return f"virtio-serial://{self.port_name}" if self.port_name else f"serial://{self.path}"


Address = UnixAddress | VsockAddress | HybridVsockAddress | SerialAddress


def parse(text: str) -> Address:
    """Read an address from its text form; a bare path is a Unix socket.

    Raises:
        AddressError: The text has no known form.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        if text.startswith(("/", "@")):
            return UnixAddress(text)
        raise AddressError(f"not an address: {text!r}")
    if not rest:
        raise AddressError(f"address without a place: {text!r}")
    match scheme:
        case "unix":
            return UnixAddress(rest)
        case "serial":
            return SerialAddress(rest)
        case "virtio-serial":
            return SerialAddress("", rest)
        case "vsock" | "hvsock":
            place, colon, port = rest.rpartition(":")
            try:
                number = int(port)
                if not colon or not 0 <= number < 1 << 32:
                    raise ValueError
                return VsockAddress(int(place), number) if scheme == "vsock" else HybridVsockAddress(place, number)
            except ValueError:
                raise AddressError(f"{scheme} address needs PLACE:PORT, got {text!r}") from None
        case _:
            raise AddressError(f"unknown scheme {scheme!r} in {text!r}")
