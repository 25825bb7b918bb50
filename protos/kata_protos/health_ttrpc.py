"""The services of kata_protos/health.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from kata_protos import health_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class HealthService(abc.ABC):
    """Serves grpc.Health."""

    ttrpc_name = "grpc.Health"

    @abc.abstractmethod
    async def Check(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """grpc.Health/Check."""

    @abc.abstractmethod
    async def Version(self, request: health_pb2.CheckRequest, context: Context) -> health_pb2.VersionCheckResponse:
        """grpc.Health/Version."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "Check": (self.Check, health_pb2.CheckRequest, False, False),
            "Version": (self.Version, health_pb2.CheckRequest, False, False),
        }


class HealthClient:
    """Calls grpc.Health over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def Check(
        self,
        request: health_pb2.CheckRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> health_pb2.HealthCheckResponse:
        """grpc.Health/Check."""
        answer = await self._client.call(
            "grpc.Health", "Check", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return health_pb2.HealthCheckResponse.FromString(answer)

    async def Version(
        self,
        request: health_pb2.CheckRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> health_pb2.VersionCheckResponse:
        """grpc.Health/Version."""
        answer = await self._client.call(
            "grpc.Health", "Version", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return health_pb2.VersionCheckResponse.FromString(answer)
