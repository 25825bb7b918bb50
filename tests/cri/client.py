"""The Container Runtime Interface as a kubelet calls it: typed calls over gRPC, each with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message

from tests.cri.proto import cri_pb2 as cri

CALL_TIMEOUT = 60.0  # seconds; what boots a machine takes its time under emulation
START_TIMEOUT = 20.0
_PAUSE = 0.05
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]  # ExecSync gives up to 16 MiB of each stream

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class CriError(Exception):
    """The manager refused; `code` is gRPC's, the text is the manager's."""

    def __init__(self, method: str, code: grpc.StatusCode, text: str) -> None:
        super().__init__(f"{method}: {code.name}: {text}")
        self.code = code
        self.text = text


class Call(Generic[Request, Response]):
    """One method."""

    def __init__(self, channel: grpc.aio.Channel, path: str, response: type[Response]) -> None:
        self._path = path
        self._call = channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    async def __call__(self, request: Request, *, timeout: float = CALL_TIMEOUT) -> Response:
        """Call it.

        Raises:
            CriError: The manager refused, or the deadline has passed.
        """
        try:
            return await self._call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise CriError(self._path.rpartition("/")[2], error.code(), error.details() or "") from None


class Cri:
    """The two services of a manager; each attribute is a method."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def runtime(name: str, _: type[Request], response: type[Response]) -> Call[Request, Response]:
            return Call(channel, f"/runtime.v1.RuntimeService/{name}", response)

        def image(name: str, _: type[Request], response: type[Response]) -> Call[Request, Response]:
            return Call(channel, f"/runtime.v1.ImageService/{name}", response)

        self.version = runtime("Version", cri.VersionRequest, cri.VersionResponse)
        self.status = runtime("Status", cri.StatusRequest, cri.StatusResponse)

        self.run_pod = runtime("RunPodSandbox", cri.RunPodSandboxRequest, cri.RunPodSandboxResponse)
        self.stop_pod = runtime("StopPodSandbox", cri.StopPodSandboxRequest, cri.StopPodSandboxResponse)
        self.remove_pod = runtime("RemovePodSandbox", cri.RemovePodSandboxRequest, cri.RemovePodSandboxResponse)
        self.pod_status = runtime("PodSandboxStatus", cri.PodSandboxStatusRequest, cri.PodSandboxStatusResponse)
        self.list_pods = runtime("ListPodSandbox", cri.ListPodSandboxRequest, cri.ListPodSandboxResponse)
        self.pod_stats = runtime("PodSandboxStats", cri.PodSandboxStatsRequest, cri.PodSandboxStatsResponse)
        self.list_pod_stats = runtime(
            "ListPodSandboxStats", cri.ListPodSandboxStatsRequest, cri.ListPodSandboxStatsResponse
        )

        self.create = runtime("CreateContainer", cri.CreateContainerRequest, cri.CreateContainerResponse)
        self.start = runtime("StartContainer", cri.StartContainerRequest, cri.StartContainerResponse)
        self.stop = runtime("StopContainer", cri.StopContainerRequest, cri.StopContainerResponse)
        self.remove = runtime("RemoveContainer", cri.RemoveContainerRequest, cri.RemoveContainerResponse)
        self.container_status = runtime("ContainerStatus", cri.ContainerStatusRequest, cri.ContainerStatusResponse)
        self.list_containers = runtime("ListContainers", cri.ListContainersRequest, cri.ListContainersResponse)
        self.update = runtime(
            "UpdateContainerResources", cri.UpdateContainerResourcesRequest, cri.UpdateContainerResourcesResponse
        )
        self.reopen_log = runtime("ReopenContainerLog", cri.ReopenContainerLogRequest, cri.ReopenContainerLogResponse)
        self.stats = runtime("ContainerStats", cri.ContainerStatsRequest, cri.ContainerStatsResponse)
        self.list_stats = runtime("ListContainerStats", cri.ListContainerStatsRequest, cri.ListContainerStatsResponse)

        self.exec_sync = runtime("ExecSync", cri.ExecSyncRequest, cri.ExecSyncResponse)
        self.exec = runtime("Exec", cri.ExecRequest, cri.ExecResponse)
        self.attach = runtime("Attach", cri.AttachRequest, cri.AttachResponse)
        self.port_forward = runtime("PortForward", cri.PortForwardRequest, cri.PortForwardResponse)

        self.list_images = image("ListImages", cri.ListImagesRequest, cri.ListImagesResponse)
        self.image_status = image("ImageStatus", cri.ImageStatusRequest, cri.ImageStatusResponse)
        self.image_fs_info = image("ImageFsInfo", cri.ImageFsInfoRequest, cri.ImageFsInfoResponse)


async def serving(client: Cri) -> None:
    """Wait until a manager that has just been started serves: it listens before its CRI plug-in is ready.

    Raises:
        CriError: It does not in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            await client.status(cri.StatusRequest(), timeout=START_TIMEOUT)
        except CriError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            return


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Cri]:
    """A manager's services, as long as the context lasts; a manager that restarts is found again."""
    async with grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS) as channel:
        yield Cri(channel)
