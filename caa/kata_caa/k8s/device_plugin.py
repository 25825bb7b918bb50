"""The node's machines as devices of the kubelet: another way to advertise them, which needs no right at the API server.

Unlike capacity that is patched into the node's status, this one survives a node that registers anew, and goes with the
adaptor. Source: Kubernetes `staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`, `pkg/kubelet/cm/devicemanager`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from kata_caa.errors import AdaptorError
from kata_protos import deviceplugin_pb2 as pb
from kata_py.resource.blocking import off_loop
from kata_py.resource.inotify import watching

logger = logging.getLogger(__name__)

KUBELET = "kubelet.sock"
VERSION = "v1beta1"
REGISTER = "/v1beta1.Registration/Register"
TIMEOUT = 10.0  # seconds that the kubelet may take to answer
PAUSE = 5.0  # seconds until a registration that failed is tried again

_Identity = tuple[int, int]  # of a file: another one at the same path has another


class DevicePluginError(AdaptorError):
    """There is no kubelet that takes device plug-ins."""


class DevicePlugin:
    """Serves so many devices, and registers them with the kubelet, again whenever it starts anew.

    Args:
        limit: How many machines there are.
        resource: What they are called.
        name: The name of our socket, which no other plug-in has.
        directory: Where the kubelet's socket is, and ours goes.
    """

    def __init__(self, limit: int, resource: str, name: str, directory: Path) -> None:
        self._devices = pb.ListAndWatchResponse(
            devices=[pb.Device(ID=f"machine-{number}", health="Healthy") for number in range(limit)]
        )
        self._request = pb.RegisterRequest(version=VERSION, endpoint=name, resource_name=resource)
        self._kubelet = directory / KUBELET
        self._socket = directory / name
        self._directory = directory

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve as long as the context lasts. A kubelet that is not there yet is waited for.

        Raises:
            DevicePluginError: There is no directory for plug-ins.
        """
        try:
            async with watching(self._directory) as news:
                task = asyncio.create_task(self._follow(news), name="device plug-in")
                try:
                    yield
                finally:
                    task.cancel()
                    await asyncio.wait([task])
        except OSError as error:
            raise DevicePluginError(
                f"devices cannot be offered to the kubelet: {self._directory}: {error.strerror or error}; "
                "mount the host's directory there"
            ) from error

    async def _follow(self, news: asyncio.Event) -> None:
        while True:
            news.clear()
            kubelet = await off_loop(_identity, self._kubelet)
            if kubelet is None:
                await news.wait()
                continue
            try:
                async with self._registered() as ours:
                    logger.info("the kubelet knows %d of %s", len(self._devices.devices), self._request.resource_name)
                    # A kubelet that starts removes all sockets, and makes its own anew.
                    while await off_loop(self._sockets) == (kubelet, ours):
                        await news.wait()
                        news.clear()
            except (grpc.aio.AioRpcError, OSError, RuntimeError) as error:
                reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                logger.warning("the kubelet does not take our devices: %s; tried again in %.0f s", reason, PAUSE)
                await asyncio.sleep(PAUSE)

    @asynccontextmanager
    async def _registered(self) -> AsyncIterator[_Identity | None]:
        """Our server, which the kubelet knows; yields the identity of its socket."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._handlers(),))
        await off_loop(lambda: self._socket.unlink(missing_ok=True))
        server.add_insecure_port(f"unix:{self._socket}")
        await server.start()
        try:
            ours = await off_loop(_identity, self._socket)
            async with grpc.aio.insecure_channel(f"unix:{self._kubelet}") as channel:
                register = channel.unary_unary(
                    REGISTER,
                    request_serializer=pb.RegisterRequest.SerializeToString,
                    response_deserializer=pb.Empty.FromString,
                )
                await register(self._request, timeout=TIMEOUT)
            yield ours
        finally:
            await server.stop(0)

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "v1beta1.DevicePlugin",
            {
                "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
                    self._options, pb.Empty.FromString, pb.DevicePluginOptions.SerializeToString
                ),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self._list, pb.Empty.FromString, pb.ListAndWatchResponse.SerializeToString
                ),
                "Allocate": grpc.unary_unary_rpc_method_handler(
                    self._allocate, pb.AllocateRequest.FromString, pb.AllocateResponse.SerializeToString
                ),
            },
        )

    async def _options(self, request: pb.Empty, context: grpc.aio.ServicerContext) -> pb.DevicePluginOptions:
        return pb.DevicePluginOptions()

    async def _list(
        self, request: pb.Empty, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        """All devices, once: none of them ever fails. The stream stays, for its end is the plug-in's."""
        yield self._devices
        await asyncio.Event().wait()

    async def _allocate(self, request: pb.AllocateRequest, context: grpc.aio.ServicerContext) -> pb.AllocateResponse:
        """Nothing is put into a container: its machine is made by whoever makes its sandbox."""
        return pb.AllocateResponse(
            container_responses=[pb.ContainerAllocateResponse() for _ in request.container_requests]
        )

    def _sockets(self) -> tuple[_Identity | None, _Identity | None]:
        return _identity(self._kubelet), _identity(self._socket)


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns
