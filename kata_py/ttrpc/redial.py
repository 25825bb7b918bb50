"""A client whose connection may be lost and dialled anew, for a peer that outlives what stands between.

Whether a call took effect is not known when its connection is lost before the answer. Calls that may take effect
twice are repeated; for the others the loss is an error, as with any client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from kata_py.ttrpc.address import Address
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

PAUSE: Final = 0.2  # seconds between attempts: nothing tells when a peer listens again
_PASSING: Final = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)  # what a probe may say of a peer that comes back
_PROBE_TIMEOUT: Final = 30.0  # seconds for one probe; whoever is between may wait for the peer itself

Probe = Callable[[Client], Awaitable[None]]
"""Asks whether the peer is there, by a call: a connection alone may end at whoever is between."""


@asynccontextmanager
async def redialling(
    address: Address, probe: Probe, *, timeout: float, patience: float, repeatable: Collection[str]
) -> AsyncIterator[RedialingClient]:
    """Connect to a server; leaving the context closes the connection for good.

    Args:
        address: Where it listens.
        probe: Asks whether it is there. Raises a `TtrpcError` if it is not; a status that is not of those that pass, as
            UNAVAILABLE does, says that it is gone for good.
        timeout: Seconds until it must be reached at first.
        patience: Seconds that a lost connection may take to come back.
        repeatable: Names of the methods that are called again when their answer was lost.

    Raises:
        ConnectError: It could not be reached.
    """
    async with AsyncExitStack() as connection:
        client = await connection.enter_async_context(connect(address, timeout=timeout, retry=PAUSE))
        redialing = RedialingClient(client, address, probe, patience, frozenset(repeatable))
        redialing.keep(connection.pop_all())
        try:
            yield redialing
        finally:
            await redialing.aclose()


class RedialingClient:
    """Calls over one connection at a time; made by `redialling`. Satisfies `kata_py.ttrpc.client.Caller`."""

    def __init__(
        self, client: Client, address: Address, probe: Probe, patience: float, repeatable: frozenset[str]
    ) -> None:
        self._client = client
        self._address = address
        self._probe = probe
        self._patience = patience
        self._repeatable = repeatable
        self._usable = asyncio.Event()
        self._usable.set()
        self._gone = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether the peer is gone for good; every call fails then."""
        return self._gone.is_set()

    def repeat(self, methods: Collection[str]) -> None:
        """Call these again as well when their answer was lost, now that the peer is known to allow it."""
        self._repeatable |= frozenset(methods)

    async def wait_closed(self) -> None:
        """Wait until the peer is gone for good."""
        await self._gone.wait()

    async def aclose(self) -> None:
        """Close the connection and let it be; pending calls fail with `ConnectionClosed`."""
        self._gone.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._usable.set()

    def keep(self, connection: AsyncExitStack) -> None:
        """Begin to watch the connection, which is ours from now on."""
        self._keeper = asyncio.create_task(self._keep(connection), name=f"connection to {self._address}")

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """As `Client.call`; the time that a connection takes to come back counts.

        A status of UNAVAILABLE means to a repeatable method that whoever is between has lost the peer.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            await self._until_usable(f"{service}/{method}", deadline)
            left = None if deadline is None else max(deadline - loop.time(), 0.001)
            client = self._client
            try:
                return await client.call(service, method, payload, timeout=left, metadata=metadata)
            except ConnectionClosed:
                if self.closed:
                    raise
                if client is self._client and client.closed:
                    self._usable.clear()  # we may have seen the loss before the keeper has
                if method not in self._repeatable:
                    raise
            except StatusError as error:
                if error.code is not Code.UNAVAILABLE or method not in self._repeatable:
                    raise
                logger.debug("%s is called again: %s", method, error.message)
                await asyncio.sleep(PAUSE)

    async def _until_usable(self, what: str, deadline: float | None) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._usable.wait()
        except TimeoutError:
            raise StatusError(Code.DEADLINE_EXCEEDED, f"{what}: {self._address} is not reached in time") from None
        if self.closed:
            raise ConnectionClosed(f"the connection to {self._address} is closed")

    async def _keep(self, connection: AsyncExitStack) -> None:
        try:
            while True:
                async with connection:
                    await self._client.wait_closed()
                self._usable.clear()
                logger.warning("%s is lost, dialling for %g s", self._address, self._patience)
                async with asyncio.timeout(self._patience):
                    connection = await self._redial()
                logger.info("%s is reached again", self._address)
                self._usable.set()
        except TimeoutError:
            logger.error("%s did not come back within %g s", self._address, self._patience)
        except StatusError as error:
            logger.error("%s does not come back: %s", self._address, error.message)
        finally:
            self._gone.set()
            self._usable.set()

    async def _redial(self) -> AsyncExitStack:
        while True:
            try:
                async with AsyncExitStack() as attempt:
                    client = await attempt.enter_async_context(
                        connect(self._address, timeout=self._patience, retry=PAUSE)
                    )
                    async with asyncio.timeout(_PROBE_TIMEOUT):
                        await self._probe(client)
                    self._client = client
                    return attempt.pop_all()
            except StatusError as error:
                if error.code not in _PASSING:
                    raise
                cause: Exception = error
            except (ConnectError, ConnectionClosed, TimeoutError) as error:
                cause = error
            logger.debug("%s is not back yet: %s", self._address, cause)
            await asyncio.sleep(PAUSE)
