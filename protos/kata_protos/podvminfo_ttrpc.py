"""The services of kata_protos/podvminfo.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from kata_protos import podvminfo_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class PodVMInfoService(abc.ABC):
    """Serves podvminfo.PodVMInfo."""

    ttrpc_name = "podvminfo.PodVMInfo"

    @abc.abstractmethod
    async def GetInfo(self, request: podvminfo_pb2.GetInfoRequest, context: Context) -> podvminfo_pb2.GetInfoResponse:
        """podvminfo.PodVMInfo/GetInfo."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "GetInfo": (self.GetInfo, podvminfo_pb2.GetInfoRequest, False, False),
        }


class PodVMInfoClient:
    """Calls podvminfo.PodVMInfo over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def GetInfo(
        self,
        request: podvminfo_pb2.GetInfoRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> podvminfo_pb2.GetInfoResponse:
        """podvminfo.PodVMInfo/GetInfo."""
        answer = await self._client.call(
            "podvminfo.PodVMInfo", "GetInfo", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return podvminfo_pb2.GetInfoResponse.FromString(answer)
