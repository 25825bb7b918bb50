"""Byte streams to a peer, one module per kind of address, behind one `connect` and one `listen`.

The modules are loaded when an address of their kind is used: a guest pays for its own kind only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from kata_py.ttrpc.address import Address, HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress
from kata_py.ttrpc.errors import ConnectError, ListenError

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
"""Makes the protocol that a new connection is given to."""


class Listener(Protocol):
    """What accepts connections."""

    def close(self) -> None:
        """Accept no more; connections that stand live on."""


async def connect(address: Address, factory: ProtocolFactory, timeout: float, retry: float | None = None) -> None:
    """Connect a protocol to the address.

    Args:
        address: Where to.
        factory: Makes the protocol, once.
        timeout: Seconds until the connection must stand.
        retry: Seconds to pause after a refusal before the next attempt; None makes the first one an error.

    Raises:
        ConnectError: It could not be reached; says what the last attempt met.
    """
    cause = "no answer"
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    await _connect(address, factory)
                    return
                except OSError as error:
                    cause = error.strerror or str(error)
                    if retry is None:
                        raise ConnectError(f"cannot connect to {address}: {cause}") from error
                await asyncio.sleep(retry)
    except TimeoutError:
        raise ConnectError(f"cannot connect to {address} within {timeout:g} s: {cause}") from None


async def listen(address: Address, factory: ProtocolFactory) -> Listener:
    """Listen at the address; each connection gets a protocol of its own.

    Raises:
        ListenError: It cannot be listened on; says why.
    """
    try:
        match address:
            case UnixAddress(path):
                from kata_py.ttrpc.transport import unix

                return await unix.listen(path, factory)
            case VsockAddress(cid, port):
                from kata_py.ttrpc.transport import vsock

                return await vsock.listen(cid, port, factory)
            case HybridVsockAddress(path, port):
                from kata_py.ttrpc.transport import hybrid_vsock

                return await hybrid_vsock.listen(path, port, factory)
            case SerialAddress():
                from kata_py.ttrpc.transport import serial

                return serial.listen(address, factory)
    except OSError as error:
        raise ListenError(f"cannot listen at {address}: {error.strerror or error}") from error


async def _connect(address: Address, factory: ProtocolFactory) -> None:
    match address:
        case UnixAddress(path):
            from kata_py.ttrpc.transport import unix

            await unix.connect(path, factory)
        case VsockAddress(cid, port):
            from kata_py.ttrpc.transport import vsock

            await vsock.connect(cid, port, factory)
        case HybridVsockAddress(path, port):
            from kata_py.ttrpc.transport import hybrid_vsock

            await hybrid_vsock.connect(path, port, factory)
        case SerialAddress():
            from kata_py.ttrpc.transport import serial

            await serial.connect(address, factory)
