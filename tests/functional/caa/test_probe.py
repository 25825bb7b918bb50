"""The start-up probe, as the kubelet asks it while an adaptor starts in a cluster."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from kata_caa import daemon
from kata_caa.command import _surroundings
from kata_caa.config import AdaptorConfig
from kata_caa.errors import SettingError, UnknownSandbox
from kata_caa.k8s import probe
from kata_caa.k8s.api import Api
from kata_caa.k8s.probe import Place, Startup
from kata_caa.providers.api import Finding, Instance, InstanceRequest, Owned, Target
from tests.kube import things
from tests.kube.rbac import rules_of
from tests.kube.server import KubeServer, kind_of, kube_server

BEGUN = datetime.datetime(2026, 6, 1, 12, 0, 0, 700_000, tzinfo=datetime.UTC)
BEFORE, AFTER = "2026-06-01T11:59:59Z", "2026-06-01T12:00:00Z"


class NoCloud:
    """A cloud that has nothing."""

    async def create(self, request: InstanceRequest) -> Instance:
        raise AssertionError("nothing is asked for")

    async def delete(self, target: Target) -> None:
        raise AssertionError("nothing is asked for")

    async def owned(self, owner: str) -> Sequence[Owned]:
        return []

    async def check(self) -> Sequence[Finding]:
        return []


class Known:
    """The pods that the adaptor has."""

    def __init__(self, *names: str) -> None:
        self._names = names

    async def instance_id(self, namespace: str, name: str, *, wait: bool) -> str:
        if name in self._names:
            return "i-1"
        raise UnknownSandbox(name)


@pytest.fixture
async def kube() -> AsyncIterator[KubeServer]:
    async with kube_server() as server:
        server.rules = rules_of("cloud-api-adaptor")
        yield server


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """A socket that accepts."""
    path = tmp_path / "hypervisor.sock"
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
        yield path


def startup(api: Api, path: Path, *known: str) -> Startup:
    return Startup(api, things.NODE, Place(str(path)), Known(*known), BEGUN)


async def test_a_socket_that_does_not_accept_is_not_started(api: Api, tmp_path: Path):
    assert "does not accept: No such file" in await startup(api, tmp_path / "none").missing()


async def test_a_node_without_peer_pods_is_started(kube: KubeServer, api: Api, path: Path):
    await kube.seed(things.pod("other", runtime_class="kata"))
    await kube.seed(things.pod("elsewhere", nodeName="worker-2"))
    assert await startup(api, path).missing() == ""


async def test_every_peer_pod_is_to_be_ready(kube: KubeServer, api: Api, path: Path):
    await kube.seed(things.ready(things.pod("first"), AFTER))
    await kube.seed(things.pod("second"))
    assert await startup(api, path).missing() == "pod shop/second is not Ready"


async def test_one_that_was_ready_before_is_to_become_so_again_until_this_was_so_once(
    kube: KubeServer, api: Api, path: Path
):
    asked = startup(api, path)
    await kube.seed(things.ready(things.pod(), BEFORE))
    assert await asked.missing() == "pod shop/web has not become Ready since the adaptor started"
    thing = kube.things("pods")[0]
    await kube.store.update(kind_of("pods"), things.NAMESPACE, "web", things.ready(thing, AFTER))
    assert await asked.missing() == ""
    thing = kube.things("pods")[0]
    await kube.store.update(kind_of("pods"), things.NAMESPACE, "web", things.ready(thing, BEFORE))
    assert await asked.missing() == ""


async def test_one_that_the_adaptor_has_taken_up_has_never_ceased_to_be_ready(kube: KubeServer, api: Api, path: Path):
    await kube.seed(things.ready(things.pod(), BEFORE))
    assert await startup(api, path, "web").missing() == ""


async def test_pods_that_have_ended_are_not_waited_for(kube: KubeServer, api: Api, path: Path):
    await kube.seed({**things.pod(), "status": {"phase": "Succeeded"}})
    assert await startup(api, path).missing() == ""


async def test_without_an_api_server_it_is_not_started(kube: KubeServer, api: Api, path: Path):
    await kube.stop()
    assert "the API server cannot be reached" in await startup(api, path).missing()


@pytest.mark.parametrize("port", ["x", "-1", "65536", "٣"])
def test_a_port_that_is_none_is_named(port: str):
    with pytest.raises(SettingError, match="PROBE_PORT"):
        Place.of("s", {"PROBE_PORT": port})


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((probe.ADDRESS, 0))
        return int(taken.getsockname()[1])


async def test_an_adaptor_in_a_cluster_answers_the_kubelet_from_start_to_end(
    kube: KubeServer, api: Api, tmp_path: Path
):
    await kube.seed(things.node())
    await kube.seed(things.pod())
    port = free_port()
    environment = {"NODE_NAME": things.NODE, "POD_UID": "u", "PROBE_PORT": str(port)}
    config = AdaptorConfig(
        socket=str(tmp_path / "peerpod" / "hypervisor.sock"), pods_dir=str(tmp_path / "pods"), owner="me"
    )

    @asynccontextmanager
    async def cloud() -> AsyncIterator[NoCloud]:
        yield NoCloud()

    async with aiohttp.ClientSession(f"http://{probe.ADDRESS}:{port}") as session:
        async with _surroundings("aws", config, environment) as cluster, daemon.serving(config, cloud(), cluster):
            async with session.get("/startup") as answer:
                assert (answer.status, await answer.text()) == (500, "pod shop/web is not Ready\n")
            async with session.get("/healthz") as answer:
                assert answer.status == 200
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            thing = things.ready(kube.things("pods")[0], now)
            await kube.store.update(kind_of("pods"), things.NAMESPACE, "web", thing)
            async with session.get("/startup") as answer:
                assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/startup")
    assert "kata.peerpods.io/vm" not in kube.things("nodes")[0]["status"]["capacity"]


async def test_an_adaptor_that_takes_over_answers_at_the_same_port(api: Api, path: Path):
    port = free_port()
    place = Place(str(path), port)
    async with probe.serving(api, things.NODE, place, Known()):
        async with probe.serving(api, things.NODE, place, Known()):
            pass
        async with aiohttp.ClientSession() as session, session.get(f"http://{probe.ADDRESS}:{port}/startup") as answer:
            assert answer.status == 200


async def test_a_node_of_no_cluster_is_alone():
    async with _surroundings("aws", AdaptorConfig(), {}) as around:
        assert around is None
