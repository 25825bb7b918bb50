"""The services of kata_protos/telemetry.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from kata_protos import telemetry_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class TelemetryService(abc.ABC):
    """Serves katapy.agent.v1.Telemetry."""

    ttrpc_name = "katapy.agent.v1.Telemetry"

    @abc.abstractmethod
    async def SetLogLevel(self, request: telemetry_pb2.SetLogLevelRequest, context: Context) -> telemetry_pb2.SetLogLevelResponse:
        """Sets from which level on the agent logs."""

    @abc.abstractmethod
    async def TakeSpans(self, request: telemetry_pb2.TakeSpansRequest, context: Context) -> telemetry_pb2.TakeSpansResponse:
        """Hands over the spans that have ended, once. Without agent.trace there are none."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "SetLogLevel": (self.SetLogLevel, telemetry_pb2.SetLogLevelRequest, False, False),
            "TakeSpans": (self.TakeSpans, telemetry_pb2.TakeSpansRequest, False, False),
        }


class TelemetryClient:
    """Calls katapy.agent.v1.Telemetry over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def SetLogLevel(
        self,
        request: telemetry_pb2.SetLogLevelRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> telemetry_pb2.SetLogLevelResponse:
        """Sets from which level on the agent logs."""
        answer = await self._client.call(
            "katapy.agent.v1.Telemetry", "SetLogLevel", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return telemetry_pb2.SetLogLevelResponse.FromString(answer)

    async def TakeSpans(
        self,
        request: telemetry_pb2.TakeSpansRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> telemetry_pb2.TakeSpansResponse:
        """Hands over the spans that have ended, once. Without agent.trace there are none."""
        answer = await self._client.call(
            "katapy.agent.v1.Telemetry", "TakeSpans", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return telemetry_pb2.TakeSpansResponse.FromString(answer)
