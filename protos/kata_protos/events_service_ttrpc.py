"""The services of kata_protos/events_service.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from google.protobuf import empty_pb2
from kata_protos import events_service_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class EventsService(abc.ABC):
    """Serves containerd.services.events.ttrpc.v1.Events."""

    ttrpc_name = "containerd.services.events.ttrpc.v1.Events"

    @abc.abstractmethod
    async def Forward(self, request: events_service_pb2.ForwardRequest, context: Context) -> empty_pb2.Empty:
        """containerd.services.events.ttrpc.v1.Events/Forward."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "Forward": (self.Forward, events_service_pb2.ForwardRequest, False, False),
        }


class EventsClient:
    """Calls containerd.services.events.ttrpc.v1.Events over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def Forward(
        self,
        request: events_service_pb2.ForwardRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.services.events.ttrpc.v1.Events/Forward."""
        answer = await self._client.call(
            "containerd.services.events.ttrpc.v1.Events", "Forward", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)
