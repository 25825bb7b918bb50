"""Byte streams to a peer, one module per kind of address, behind one `connect` and one `listen`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from kata_py.ttrpc.address import Address, UnixAddress
from kata_py.ttrpc.errors import ConnectError, ListenError

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Listener(Protocol):
    """What accepts connections."""

    def close(self) -> None:
        """Accept no more; established connections live on."""


async def connect(address: Address, factory: ProtocolFactory, timeout: float) -> None:
    """Connect a protocol to the address.

    Args:
        address: Where to.
        factory: Makes the protocol.
        timeout: Seconds until it must stand.

    Raises:
        ConnectError: It could not be reached.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            match address:
                case UnixAddress(path):
                    await loop.create_unix_connection(factory, _unix(path))
                case _:
                    raise NotImplementedError(str(address))
    except TimeoutError:
        raise ConnectError(f"cannot connect to {address}: no answer within {timeout:g} s") from None
    except OSError as error:
        raise ConnectError(f"cannot connect to {address}: {error.strerror or error}") from error


async def listen(address: Address, factory: ProtocolFactory) -> Listener:
    """Listen at the address; each connection gets a protocol of its own.

    Raises:
        ListenError: It cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    try:
        match address:
            case UnixAddress(path):
                return await loop.create_unix_server(factory, _unix(path))
            case _:
                raise NotImplementedError(str(address))
    except OSError as error:
        raise ListenError(f"cannot listen at {address}: {error.strerror or error}") from error


def _unix(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path
