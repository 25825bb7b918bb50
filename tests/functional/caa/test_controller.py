"""The controller: machines of pods that have gone are deleted, once their cloud and the API server let it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.k8s import api as api_module
from kata_caa.k8s import command, peerpod
from kata_caa.k8s.api import Api
from kata_caa.k8s.controller import Controller, Pauses
from kata_caa.k8s.peerpod import FINALIZER
from kata_caa.providers.api import Target
from kata_caa.settings import setting
from tests.kube import things
from tests.kube.rbac import rules_of
from tests.kube.server import Hook, KubeServer, kind_of, kube_server
from tests.kube.store import Refused

BOUND = 10.0  # seconds that anything here may take
OTHER = "f" * 64


class Found:
    """Entry points: what is installed."""

    def __init__(self, **loaded: Any) -> None:
        self.names = set(loaded)
        self._loaded = loaded

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(load=lambda: self._loaded[name])


class Cloud:
    """Deletes machines: `deleted` tells which; it can be made to fail."""

    def __init__(self) -> None:
        self.deleted: list[Target] = []
        self.failures: list[ProviderError] = []
        self.news = asyncio.Event()

    async def delete(self, target: Target) -> None:
        self.news.set()
        if self.failures:
            raise self.failures.pop(0)
        self.deleted.append(target)


@pytest.fixture
async def kube() -> AsyncIterator[KubeServer]:
    """An API server that allows the controller what our manifests do."""
    async with kube_server() as server:
        server.rules = rules_of("peerpod-controller")
        yield server


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@asynccontextmanager
async def running(api: Api, cloud: Cloud) -> AsyncIterator[asyncio.Task[Any]]:
    controller = Controller(api, cloud, "aws", pauses=Pauses(0.01, 0.05))
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.wait([task])


async def put(kube: KubeServer, owner: dict[str, Any], instance: str, sandbox: str = things.SANDBOX) -> dict[str, Any]:
    """A pod's machine is put down, as the adaptor does."""
    return await kube.seed(peerpod.body(things.record(instance, sandbox), "aws", owner["metadata"]["uid"]))


async def until(kube: KubeServer, true: Callable[[], bool]) -> None:
    """Wait for what an object becomes."""
    async with asyncio.timeout(BOUND), kube.store.news:
        while not true():
            await kube.store.news.wait()


async def followed(kube: KubeServer) -> None:
    """Wait until the controller watches: what was there before it has seen."""
    await until(kube, lambda: kube.watches > 0)


async def test_when_a_pod_has_gone_its_machine_is_deleted_and_then_the_object(kube: KubeServer, api: Api, cloud: Cloud):
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    async with running(api, cloud):
        await followed(kube)
        assert cloud.deleted == []
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await until(kube, lambda: not kube.things("peerpods"))
    assert cloud.deleted == [Target(things.SANDBOX, "podvm-web-01234567", "i-1")]


async def test_a_machine_that_had_waited_for_its_pod_is_deleted_as_the_cloud_knows_it(
    kube: KubeServer, api: Api, cloud: Cloud
):
    pod = await kube.seed(things.pod())
    record = replace(things.record("i-7"), machine="7" * 32)
    await kube.seed(peerpod.body(record, "aws", pod["metadata"]["uid"]))
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    async with running(api, cloud):
        await until(kube, lambda: not kube.things("peerpods"))
    assert cloud.deleted == [record.target]


async def test_what_was_deleted_while_no_controller_ran_is_seen_to(kube: KubeServer, api: Api, cloud: Cloud):
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    async with running(api, cloud):
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(cloud.deleted) == 1


async def test_of_the_machines_of_one_pod_only_the_youngest_stays(kube: KubeServer, api: Api, cloud: Cloud):
    pod, other = await kube.seed(things.pod()), await kube.seed(things.pod("other"))
    await put(kube, pod, "i-1")
    await put(kube, other, "i-other", OTHER)
    async with running(api, cloud):
        await followed(kube)
        await put(kube, pod, "i-2", "2" * 64)
        await until(kube, lambda: len(kube.things("peerpods")) == 2)
    assert [each.instance_id for each in cloud.deleted] == ["i-1"]
    assert sorted(each["spec"]["instanceID"] for each in kube.things("peerpods")) == ["i-2", "i-other"]


async def test_a_machine_that_cannot_be_deleted_keeps_its_object_until_it_can(kube: KubeServer, api: Api, cloud: Cloud):
    cloud.failures = [ProviderError(fault, "no") for fault in (Fault.THROTTLE, Fault.TRANSIENT, Fault.FATAL)]
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    async with running(api, cloud):
        async with asyncio.timeout(BOUND):
            await cloud.news.wait()
        assert kube.things("peerpods")
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(cloud.deleted) == 1


async def test_an_object_that_upstream_made_is_known_by_its_machine_alone(kube: KubeServer, api: Api, cloud: Cloud):
    await kube.seed({
        "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPod",
        "metadata": {"name": "web-resource-x2x2x", "namespace": things.NAMESPACE, "finalizers": [FINALIZER]},
        "spec": {"cloudProvider": "aws", "instanceID": "i-9"},
    })  # fmt: skip
    await kube.store.delete(kind_of("peerpods"), things.NAMESPACE, "web-resource-x2x2x")
    async with running(api, cloud):
        await until(kube, lambda: not kube.things("peerpods"))
    assert cloud.deleted == [Target("", "", "i-9")]


async def test_an_object_that_says_nothing_of_a_machine_deletes_none(kube: KubeServer, api: Api, cloud: Cloud):
    await kube.seed({
        "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPod",
        "metadata": {"name": "empty", "namespace": things.NAMESPACE, "finalizers": [FINALIZER]},
    })  # fmt: skip
    await kube.store.delete(kind_of("peerpods"), things.NAMESPACE, "empty")
    async with running(api, cloud):
        await until(kube, lambda: not kube.things("peerpods"))
    assert cloud.deleted == []


async def test_a_machine_of_another_cloud_is_left_alone(kube: KubeServer, api: Api, cloud: Cloud, caplog):
    pod = await kube.seed(things.pod())
    thing = peerpod.body(things.record("i-1"), "azure", pod["metadata"]["uid"])
    await kube.seed(thing)
    await put(kube, pod, "i-2", OTHER)
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    async with running(api, cloud):
        await until(kube, lambda: len(kube.things("peerpods")) == 1)
    assert [each["spec"]["cloudProvider"] for each in kube.things("peerpods")] == ["azure"]
    assert [each.instance_id for each in cloud.deleted] == ["i-2"]


async def test_a_watch_that_is_too_late_begins_anew_and_misses_nothing(kube: KubeServer, api: Api, cloud: Cloud):
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    async with running(api, cloud):
        await followed(kube)
        await kube.drop_watches()
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await kube.store.compact()
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(cloud.deleted) == 1


async def test_a_watcher_that_the_api_server_ends_with_gone_lists_again(kube: KubeServer, api: Api, cloud: Cloud):
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")

    async def compact() -> None:
        await kube.seed(things.pod("other"))
        await kube.store.compact()

    kube.hooks.append(Hook("watch", "peerpods", compact))
    async with running(api, cloud):
        await followed(kube)
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(kube.requests("list", "peerpods")) == 2


async def test_a_watch_at_whose_end_nobody_is_any_more_is_given_up(
    kube: KubeServer, api: Api, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api_module, "WATCH_TIMEOUT", 1)
    monkeypatch.setattr(api_module, "_WATCH_GRACE", -0.95)
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    kube.hooks.append(Hook("watch", "peerpods", asyncio.Event().wait))
    async with running(api, cloud):
        await followed(kube)
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(cloud.deleted) == 1


async def test_an_api_server_that_has_gone_is_waited_for(kube: KubeServer, api: Api, cloud: Cloud):
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    async with running(api, cloud):
        await followed(kube)
        await kube.stop()
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await kube.start()
        await until(kube, lambda: not kube.things("peerpods"))
    assert len(cloud.deleted) == 1


@pytest.mark.parametrize(("verb", "code"), [("list", 403), ("watch", 500), ("patch", 500), ("patch", 409)])
async def test_a_request_that_fails_is_made_again(kube: KubeServer, api: Api, cloud: Cloud, verb: str, code: int):
    async def fail() -> None:
        raise Refused(code, "Reason", "not now")

    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    kube.hooks.append(Hook(verb, "peerpods", fail))
    async with running(api, cloud):
        await followed(kube)
        await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
        await until(kube, lambda: not kube.things("peerpods"))
    assert kube.hooks == []


async def test_whoever_releases_the_object_meanwhile_ends_the_tries(kube: KubeServer, api: Api, cloud: Cloud):
    cloud.failures = [ProviderError(Fault.FATAL, "no") for _ in range(1000)]
    pod = await kube.seed(things.pod())
    made = await put(kube, pod, "i-1")
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    async with running(api, cloud) as task:
        async with asyncio.timeout(BOUND):
            await cloud.news.wait()
        (thing,) = kube.things("peerpods")
        thing["metadata"]["finalizers"] = []
        await kube.store.update(kind_of("peerpods"), things.NAMESPACE, made["metadata"]["name"], thing)
        (trying,) = (each for each in asyncio.all_tasks() if each.get_name().startswith("_finish of"))
        await asyncio.wait([trying], timeout=BOUND)
        assert trying.done()
        assert not task.done()


async def test_the_command_follows_until_it_is_told_to_end(
    kube: KubeServer, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = []

    @dataclass(frozen=True)
    class Settings:
        region: str = setting("", "region", "REGION", "where")

    @asynccontextmanager
    async def provider(settings: Settings) -> AsyncIterator[Cloud]:
        opened.append(settings.region)
        yield cloud

    provider.config = Settings
    monkeypatch.setattr(command, "entry_points", lambda group: Found(aws=provider))
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    environment = {"CLOUD_PROVIDER": "aws", "REGION": "eu-1", "HEALTH_PORT": "0"}
    task = asyncio.create_task(command._until_told(command._controller([], environment)))
    await until(kube, lambda: not kube.things("peerpods"))
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(BOUND):
        await task
    assert opened == ["eu-1"]
    assert len(cloud.deleted) == 1


async def test_the_role_allows_what_the_controller_asks_for_and_nothing_else(kube: KubeServer, api: Api, cloud: Cloud):
    async def conflict() -> None:
        raise Refused(409, "Conflict", "another one by now")

    pod = await kube.seed(things.pod())
    await put(kube, pod, "i-1")
    kube.hooks.append(Hook("patch", "peerpods", conflict))
    async with running(api, cloud):
        await followed(kube)
        await put(kube, pod, "i-2", OTHER)
        await until(kube, lambda: len(kube.things("peerpods")) == 1)
    allowed = {(verb, resource) for rule in kube.rules for verb in rule.verbs for resource in rule.resources}
    assert {(each.verb, each.resource) for each in kube.asked} == allowed
