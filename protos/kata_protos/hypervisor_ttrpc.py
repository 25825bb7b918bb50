"""The services of kata_protos/hypervisor.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from kata_protos import hypervisor_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class HypervisorService(abc.ABC):
    """Serves hypervisor.Hypervisor."""

    ttrpc_name = "hypervisor.Hypervisor"

    @abc.abstractmethod
    async def CreateVM(self, request: hypervisor_pb2.CreateVMRequest, context: Context) -> hypervisor_pb2.CreateVMResponse:
        """hypervisor.Hypervisor/CreateVM."""

    @abc.abstractmethod
    async def StartVM(self, request: hypervisor_pb2.StartVMRequest, context: Context) -> hypervisor_pb2.StartVMResponse:
        """hypervisor.Hypervisor/StartVM."""

    @abc.abstractmethod
    async def StopVM(self, request: hypervisor_pb2.StopVMRequest, context: Context) -> hypervisor_pb2.StopVMResponse:
        """hypervisor.Hypervisor/StopVM."""

    @abc.abstractmethod
    async def Version(self, request: hypervisor_pb2.VersionRequest, context: Context) -> hypervisor_pb2.VersionResponse:
        """hypervisor.Hypervisor/Version."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "CreateVM": (self.CreateVM, hypervisor_pb2.CreateVMRequest, False, False),
            "StartVM": (self.StartVM, hypervisor_pb2.StartVMRequest, False, False),
            "StopVM": (self.StopVM, hypervisor_pb2.StopVMRequest, False, False),
            "Version": (self.Version, hypervisor_pb2.VersionRequest, False, False),
        }


class HypervisorClient:
    """Calls hypervisor.Hypervisor over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def CreateVM(
        self,
        request: hypervisor_pb2.CreateVMRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> hypervisor_pb2.CreateVMResponse:
        """hypervisor.Hypervisor/CreateVM."""
        answer = await self._client.call(
            "hypervisor.Hypervisor", "CreateVM", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return hypervisor_pb2.CreateVMResponse.FromString(answer)

    async def StartVM(
        self,
        request: hypervisor_pb2.StartVMRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> hypervisor_pb2.StartVMResponse:
        """hypervisor.Hypervisor/StartVM."""
        answer = await self._client.call(
            "hypervisor.Hypervisor", "StartVM", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return hypervisor_pb2.StartVMResponse.FromString(answer)

    async def StopVM(
        self,
        request: hypervisor_pb2.StopVMRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> hypervisor_pb2.StopVMResponse:
        """hypervisor.Hypervisor/StopVM."""
        answer = await self._client.call(
            "hypervisor.Hypervisor", "StopVM", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return hypervisor_pb2.StopVMResponse.FromString(answer)

    async def Version(
        self,
        request: hypervisor_pb2.VersionRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> hypervisor_pb2.VersionResponse:
        """hypervisor.Hypervisor/Version."""
        answer = await self._client.call(
            "hypervisor.Hypervisor", "Version", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return hypervisor_pb2.VersionResponse.FromString(answer)
