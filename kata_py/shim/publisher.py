"""Events to the manager: `Events.Forward` on its ttrpc socket; without one, as under CRI-O, to the log.

Source: containerd `pkg/shim/publisher.go`, `api/services/ttrpc/events/v1/events.proto`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from kata_protos.envelope_pb2 import Envelope
from kata_protos.events_service_pb2 import ForwardRequest
from kata_protos.events_service_ttrpc import EventsClient
from kata_py.sandbox.events import Event, Publisher
from kata_py.ttrpc import address as addresses
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0  # seconds; containerd's own publisher's, also for the connection
CALL_ATTEMPTS = 5  # for a manager that hangs
_PAUSES = (0.1, 5.0)  # seconds between attempts to reach a manager that is away: the first, and the longest


@contextlib.asynccontextmanager
async def publisher(address: str, namespace: str) -> AsyncIterator[Publisher]:
    """A sender of events for `kata_py.sandbox.events.EventQueue`.

    Args:
        address: The manager's ttrpc socket, with or without `unix://`; empty when it takes no events. One of no
            known form costs the manager its events, not the pod its life.
        namespace: The manager's namespace.
    """
    try:
        place = addresses.parse(address) if address else None
    except addresses.AddressError as error:
        logger.error("TTRPC_ADDRESS: %s; events are only logged", error)
        place = None
    if place is None:
        yield _log
        return
    async with _Forwarder(place, namespace) as forwarder:
        yield forwarder.forward


async def _log(event: Event) -> None:
    logger.info("event %s: %s", event.topic, " ".join(str(event.message).split()))


class _Forwarder:
    """One connection to the manager, made when it is needed and again when it broke."""

    def __init__(self, address: addresses.Address, namespace: str) -> None:
        self._address = address
        self._namespace = namespace
        self._connection = AsyncExitStack()
        self._events: EventsClient | None = None

    async def __aenter__(self) -> _Forwarder:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._disconnect()

    async def forward(self, event: Event) -> None:
        """Send one event. A manager that is away is waited for, one that hangs is given up on.

        Raises:
            StatusError: The manager refuses the event, or did not answer `CALL_ATTEMPTS` times.
        """
        request = self._request(event)
        pause, longest = _PAUSES
        attempts = 0
        while True:
            try:
                if self._events is None:
                    client = await self._connection.enter_async_context(connect(self._address, timeout=CALL_TIMEOUT))
                    self._events = EventsClient(client)
                await self._events.Forward(request, timeout=CALL_TIMEOUT)
                return
            except StatusError as error:
                attempts += 1
                if error.code is not Code.DEADLINE_EXCEEDED or attempts == CALL_ATTEMPTS:
                    raise
            except (ConnectError, ConnectionClosed) as error:
                if pause == _PAUSES[0]:
                    logger.warning("the manager is not there to take %s, trying on: %s", event.topic, error)
            await self._disconnect()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _disconnect(self) -> None:
        self._events = None
        await self._connection.aclose()

    def _request(self, event: Event) -> ForwardRequest:
        # The bare name: containerd's type URLs have no host in front.
        message = Any(type_url=event.message.DESCRIPTOR.full_name, value=event.message.SerializeToString())
        timestamp = Timestamp()
        timestamp.FromNanoseconds(event.time)
        envelope = Envelope(timestamp=timestamp, namespace=self._namespace, topic=event.topic, event=message)
        return ForwardRequest(envelope=envelope)
