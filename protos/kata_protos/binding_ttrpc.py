"""The services of kata_protos/binding.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from kata_protos import binding_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class BindingService(abc.ABC):
    """Serves katapy.peerpod.v1.Binding."""

    ttrpc_name = "katapy.peerpod.v1.Binding"

    @abc.abstractmethod
    async def State(self, request: binding_pb2.StateRequest, context: Context) -> binding_pb2.StateResponse:
        """Answers whether the machine waits for a pod. Whoever is served by the agent already is told UNIMPLEMENTED."""

    @abc.abstractmethod
    async def Bind(self, request: binding_pb2.BindRequest, context: Context) -> binding_pb2.BindResponse:
        """Makes the machine a pod's. Answered when all that it was given is written; once, and never undone."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "State": (self.State, binding_pb2.StateRequest, False, False),
            "Bind": (self.Bind, binding_pb2.BindRequest, False, False),
        }


class BindingClient:
    """Calls katapy.peerpod.v1.Binding over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def State(
        self,
        request: binding_pb2.StateRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> binding_pb2.StateResponse:
        """Answers whether the machine waits for a pod. Whoever is served by the agent already is told UNIMPLEMENTED."""
        answer = await self._client.call(
            "katapy.peerpod.v1.Binding", "State", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return binding_pb2.StateResponse.FromString(answer)

    async def Bind(
        self,
        request: binding_pb2.BindRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> binding_pb2.BindResponse:
        """Makes the machine a pod's. Answered when all that it was given is written; once, and never undone."""
        answer = await self._client.call(
            "katapy.peerpod.v1.Binding", "Bind", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return binding_pb2.BindResponse.FromString(answer)
