"""Machines as devices of the kubelet, which is one of ours here: it calls as the real one does, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from kata_caa.k8s import device_plugin
from kata_caa.k8s.api import Api
from kata_caa.k8s.cluster import RESOURCE, Cluster, Place
from kata_caa.k8s.device_plugin import KUBELET, DevicePlugin, DevicePluginError
from kata_protos import deviceplugin_pb2 as pb

BOUND = 10.0  # seconds that anything here may take
NAME = "kata-peerpods-test.sock"


class Kubelet:
    """A kubelet's device manager: what has registered, and what it offers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: grpc.aio.Server | None = None
        self._news = asyncio.Condition()
        self._watches: list[asyncio.Task[None]] = []
        self.registered: list[pb.RegisterRequest] = []
        self.offered: dict[str, list[str]] = {}  # by resource; what has gone has none
        self.refusals = 0

    async def start(self) -> None:
        """Begin: whatever sockets there are belong to plug-ins that are to register anew."""
        for path in self._directory.iterdir():
            path.unlink()
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._register, pb.RegisterRequest.FromString, pb.Empty.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler}),)
        )
        self._server.add_insecure_port(f"unix:{self._directory / KUBELET}")
        await self._server.start()

    async def stop(self) -> None:
        for task in self._watches:
            task.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        self._watches.clear()
        if self._server is not None:
            await self._server.stop(0)
        self._server = None

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND), self._news:
            await self._news.wait_for(true)

    def channel(self, endpoint: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"unix:{self._directory / endpoint}")

    async def _register(self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext) -> pb.Empty:
        async with self._news:
            self._news.notify_all()
            if self.refusals:
                self.refusals -= 1
                await context.abort(grpc.StatusCode.UNKNOWN, "not now")
            if request.version != "v1beta1" or "/" not in request.resource_name:
                await context.abort(grpc.StatusCode.UNKNOWN, "requested API version is not supported by kubelet")
            self.registered.append(request)
        self._watches.append(asyncio.create_task(self._watch(request)))
        return pb.Empty()

    async def _watch(self, request: pb.RegisterRequest) -> None:
        try:
            async with self.channel(request.endpoint) as channel:
                listing = channel.unary_stream(
                    "/v1beta1.DevicePlugin/ListAndWatch",
                    request_serializer=pb.Empty.SerializeToString,
                    response_deserializer=pb.ListAndWatchResponse.FromString,
                )(pb.Empty())
                async for answer in listing:
                    healthy = [each.ID for each in answer.devices if each.health == "Healthy"]
                    await self._tell(request.resource_name, healthy)
        except grpc.aio.AioRpcError:
            pass
        await self._tell(request.resource_name, [])

    async def _tell(self, resource: str, devices: list[str]) -> None:
        async with self._news:
            self.offered[resource] = devices
            self._news.notify_all()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "dp"
    made.mkdir()
    return made


@pytest.fixture
async def kubelet(directory: Path) -> AsyncIterator[Kubelet]:
    made = Kubelet(directory)
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def plugin(directory: Path, limit: int = 3) -> AsyncIterator[None]:
    async with DevicePlugin(limit, RESOURCE, NAME, directory).serving():
        yield


async def test_the_kubelet_is_offered_as_many_devices_as_there_may_be_machines(directory: Path, kubelet: Kubelet):
    async with plugin(directory):
        await kubelet.until(lambda: len(kubelet.offered.get(RESOURCE, ())) == 3)
        (request,) = kubelet.registered
        assert (request.endpoint, request.resource_name) == (NAME, RESOURCE)
        assert len(set(kubelet.offered[RESOURCE])) == 3
    await kubelet.until(lambda: kubelet.offered[RESOURCE] == [])
    assert [each.name for each in directory.iterdir()] == [KUBELET]


async def test_a_device_brings_nothing_into_a_container(directory: Path, kubelet: Kubelet):
    async with plugin(directory), kubelet.channel(NAME) as channel:
        await kubelet.until(lambda: bool(kubelet.offered.get(RESOURCE)))
        allocate = channel.unary_unary(
            "/v1beta1.DevicePlugin/Allocate",
            request_serializer=pb.AllocateRequest.SerializeToString,
            response_deserializer=pb.AllocateResponse.FromString,
        )
        asked = [pb.ContainerAllocateRequest(devices_ids=["machine-0"]) for _ in range(2)]
        answer = await allocate(pb.AllocateRequest(container_requests=asked), timeout=BOUND)
        assert len(answer.container_responses) == 2
        options = channel.unary_unary(
            "/v1beta1.DevicePlugin/GetDevicePluginOptions",
            request_serializer=pb.Empty.SerializeToString,
            response_deserializer=pb.DevicePluginOptions.FromString,
        )
        assert await options(pb.Empty(), timeout=BOUND) == pb.DevicePluginOptions()


async def test_a_kubelet_that_starts_anew_is_registered_with_anew(directory: Path, kubelet: Kubelet):
    async with plugin(directory):
        for times in (1, 2, 3):
            await kubelet.until(
                lambda times=times: len(kubelet.registered) == times and bool(kubelet.offered.get(RESOURCE))
            )
            await kubelet.stop()
            kubelet.offered[RESOURCE] = []
            await kubelet.start()
        await kubelet.until(lambda: len(kubelet.registered) == 4)


async def test_a_kubelet_that_is_not_there_yet_is_waited_for(directory: Path):
    late = Kubelet(directory)
    async with plugin(directory):
        await late.start()
        try:
            await late.until(lambda: bool(late.offered.get(RESOURCE)))
        finally:
            await late.stop()


async def test_a_kubelet_that_refuses_is_asked_again(
    directory: Path, kubelet: Kubelet, caplog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device_plugin, "PAUSE", 0.01)
    kubelet.refusals = 2
    async with plugin(directory):
        await kubelet.until(lambda: bool(kubelet.offered.get(RESOURCE)))
    assert caplog.text.count("the kubelet does not take our devices: not now") == 2


async def test_without_the_kubelet_s_directory_it_does_not_start(tmp_path: Path):
    with pytest.raises(DevicePluginError, match=r"devices cannot be offered.*/none: .*No such file"):
        await DevicePlugin(1, RESOURCE, NAME, tmp_path / "none").serving().__aenter__()


async def test_a_node_that_offers_devices_leaves_its_status_alone(directory: Path, kubelet: Kubelet):
    class Nobody(Api):
        def __init__(self) -> None:
            pass  # a request would fail: there is no client

    place = Place(node="n", uid="0123456789", limit=2, devices=directory)
    async with Cluster(Nobody(), place).joined(SimpleNamespace(records=())):
        await kubelet.until(lambda: len(kubelet.offered.get(RESOURCE, ())) == 2)
    assert kubelet.registered[0].endpoint == "kata-peerpods-01234567.sock"
