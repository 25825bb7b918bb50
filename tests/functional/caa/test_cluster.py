"""A node's adaptor at the API server: capacity, PeerPods, events, pull secrets; and what happens without it."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightkube import KubeConfig
from lightkube.resources.core_v1 import Pod

from kata_caa.apf import PodNetwork
from kata_caa.errors import AdaptorError, Fault, ProviderError, TunnelError
from kata_caa.k8s import cluster as cluster_module
from kata_caa.k8s import peerpod, probe
from kata_caa.k8s.api import Api, ClusterError, connected
from kata_caa.k8s.cluster import OWNER, RESOURCE, Cluster, Place
from kata_caa.k8s.peerpod import FINALIZER, SANDBOX_ANNOTATION
from kata_caa.peer import Failure
from kata_caa.pool.machine import Machine
from kata_caa.providers.api import InstanceSpec
from kata_caa.record import PodRecord, State
from kata_caa.service import RemoteHypervisor
from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.testing import channel
from tests.kube import things
from tests.kube.rbac import rules_of
from tests.kube.server import Hook, KubeServer, kind_of, kube_server
from tests.kube.store import Refused
from tests.unit.caa.test_pods import Node

PLACE = Place(node=things.NODE, uid="uid-of-this-adaptor", provider="aws", limit=10)
WAITING = Machine("7" * 32, InstanceSpec(), "material", "token", instance_id="i-7")
NO_PODS = SimpleNamespace(records=())
NO_CAPACITY = Failure(things.NAMESPACE, "web", "no capacity")
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


@pytest.fixture
async def kube() -> AsyncIterator[KubeServer]:
    """An API server that allows the adaptor what our manifests do."""
    async with kube_server() as server:
        server.rules = rules_of("cloud-api-adaptor")
        yield server


@pytest.fixture
def cluster(api: Api) -> Cluster:
    return Cluster(api, PLACE)


def node_of(kube: KubeServer) -> tuple[str | None, str | None]:
    """The owner and the capacity that the node has."""
    (node,) = kube.things("nodes")
    return node["metadata"]["annotations"].get(OWNER), node["status"]["capacity"].get(RESOURCE)


async def refuse(code: int, reason: str = "InternalError") -> None:
    raise Refused(code, reason, f"etcd says {reason}")


async def test_the_node_advertises_its_capacity_as_long_as_the_adaptor_serves(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.node())
    async with cluster.joined(NO_PODS):
        assert node_of(kube) == (PLACE.uid, "10")
    assert node_of(kube) == (None, None)
    (node,) = kube.things("nodes")
    assert node["metadata"]["annotations"] == {"volumes.kubernetes.io/x": "true"}
    assert node["status"]["capacity"] == {"cpu": "4", "memory": "8Gi"}


async def test_an_adaptor_that_takes_over_keeps_the_capacity_when_the_old_one_ends(kube: KubeServer, api: Api):
    await kube.seed(things.node())
    async with AsyncExitStack() as new:
        async with Cluster(api, PLACE).joined(NO_PODS):
            await new.enter_async_context(Cluster(api, replace(PLACE, uid="new", limit=3)).joined(NO_PODS))
        assert node_of(kube) == ("new", "3")
    assert node_of(kube) == (None, None)


async def test_an_adaptor_that_takes_over_between_test_and_removal_keeps_the_capacity(kube: KubeServer, api: Api):
    await kube.seed(things.node())
    async with AsyncExitStack() as new:
        async with Cluster(api, PLACE).joined(NO_PODS):
            joined = Cluster(api, replace(PLACE, uid="new")).joined(NO_PODS)
            kube.hooks.append(Hook("patch", "nodes/status", lambda: new.enter_async_context(joined)))
        assert node_of(kube) == ("new", "10")


async def test_below_zero_nothing_is_advertised(kube: KubeServer, api: Api):
    async with Cluster(api, replace(PLACE, limit=-1)).joined(NO_PODS):
        assert kube.asked == []


@pytest.mark.parametrize("resource", ["nodes", "nodes/status"])
async def test_a_verb_that_is_missing_ends_the_start_and_is_named(kube: KubeServer, cluster: Cluster, resource: str):
    await kube.seed(things.node())
    kube.rules = [replace(each, resources=each.resources - {resource}) for each in kube.rules]
    with pytest.raises(AdaptorError, match=rf"a role must allow verb 'patch' on resource '{resource}' of API group ''"):
        await cluster.joined(NO_PODS).__aenter__()


async def test_a_node_that_does_not_exist_ends_the_start(kube: KubeServer, cluster: Cluster):
    with pytest.raises(ClusterError, match=r'capacity.*nodes "worker-1" not found'):
        await cluster.joined(NO_PODS).__aenter__()


async def test_an_api_server_that_cannot_be_reached_ends_the_start(kube: KubeServer, cluster: Cluster):
    await kube.stop()
    with pytest.raises(ClusterError, match="patch nodes worker-1: the API server cannot be reached"):
        await cluster.joined(NO_PODS).__aenter__()


async def test_an_api_server_that_has_gone_does_not_hold_up_the_end(kube: KubeServer, cluster: Cluster, caplog):
    await kube.seed(things.node())
    async with asyncio.timeout(5):
        async with cluster.joined(NO_PODS):
            await kube.stop()
    assert "the node's capacity of peer pods stays" in caplog.text


async def test_a_pod_with_a_machine_has_a_peerpod_that_it_owns(kube: KubeServer, cluster: Cluster):
    pod = await kube.seed(things.pod())
    await cluster.created(things.record())
    (made,) = kube.things("peerpods")
    metadata = made["metadata"]
    assert made["spec"] == {"cloudProvider": "aws", "instanceID": "i-1"}
    assert metadata["name"].startswith("web-resource-")
    assert len(metadata["name"]) == len("web-resource-") + 5
    assert metadata["finalizers"] == [FINALIZER]
    assert metadata["annotations"][SANDBOX_ANNOTATION] == things.SANDBOX
    (owner,) = metadata["ownerReferences"]
    assert owner == {
        "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


async def test_of_a_machine_that_had_waited_the_object_is_found_by_its_sandbox_all_the_same(
    kube: KubeServer, cluster: Cluster
):
    await kube.seed(things.pod())
    record = replace(things.record(), machine="7" * 32)
    for _ in range(2):
        await cluster.created(record)
    (made,) = kube.things("peerpods")
    assert made["metadata"]["annotations"][SANDBOX_ANNOTATION] == things.SANDBOX
    await cluster.deleted(record)
    assert kube.things("peerpods") == []


async def test_it_is_made_once_whichever_adaptor_asks(kube: KubeServer, api: Api):
    await kube.seed(things.pod())
    for _ in range(2):
        await Cluster(api, PLACE).created(things.record())
    assert len(kube.things("peerpods")) == 1


async def test_a_machine_that_waits_has_a_peerpod_that_its_node_owns_until_it_waits_no_more(
    kube: KubeServer, cluster: Cluster
):
    node = await kube.seed(things.node())
    for _ in range(2):  # the next adaptor tells of it again
        await cluster.waits(WAITING)
    (made,) = kube.things("peerpods")
    assert made["spec"] == {"cloudProvider": "aws", "instanceID": "i-7"}
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (WAITING.name, PLACE.namespace)
    assert metadata["finalizers"] == [FINALIZER]
    assert metadata["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": things.NODE, "uid": node["metadata"]["uid"]}
    ]
    assert peerpod.target_of(made) == WAITING.target
    for _ in range(2):
        await cluster.waited(WAITING)
    assert kube.things("peerpods") == []


async def test_a_machine_that_waits_is_not_held_up_by_an_api_server_that_has_gone(
    kube: KubeServer, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    await kube.stop()
    await cluster.waits(WAITING)
    await cluster.waited(WAITING)
    assert "podvm-pool-77777777: its PeerPod cannot be made" in caplog.text
    assert "podvm-pool-77777777: its PeerPod cannot be deleted" in caplog.text


class Looked:
    """Pods; `looked` is set once they have been looked at ten times."""

    def __init__(self, now: tuple[PodRecord, ...]) -> None:
        self.now = now
        self.looked = asyncio.Event()
        self._times = 0

    @property
    def records(self) -> tuple[PodRecord, ...]:
        self._times += 1
        if self._times == 10:
            self.looked.set()
        return self.now


def owed() -> list[asyncio.Task[None]]:
    """The PeerPods that are still to be made."""
    return [each for each in asyncio.all_tasks() if each.get_name().startswith("PeerPod of")]


async def present(kube: KubeServer, number: int) -> None:
    """Wait until there are so many PeerPods."""
    async with asyncio.timeout(5), kube.store.news:
        await kube.store.news.wait_for(lambda: len(kube.things("peerpods")) == number)


async def test_one_that_cannot_be_made_is_made_once_the_api_server_is_back(
    kube: KubeServer, api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "PAUSE", 0.01)
    await kube.seed(things.pod())
    cluster = Cluster(api, replace(PLACE, limit=-1))
    async with cluster.joined(SimpleNamespace(records=(things.record(""),))):
        await kube.stop()
        await cluster.created(things.record())
        await kube.start()
        await present(kube, 1)


async def test_one_that_is_late_waits_until_the_pod_has_no_other_machine(
    kube: KubeServer, api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "PAUSE", 0.01)
    monkeypatch.setattr(cluster_module, "PAUSE_MAX", 0.01)
    await kube.seed(things.pod())
    pods = Looked((things.record(), things.record("i-2", "2" * 64)))
    async with Cluster(api, replace(PLACE, limit=-1)).joined(pods):
        async with asyncio.timeout(5):
            await pods.looked.wait()
        assert kube.asked == []
        pods.now = (replace(pods.now[0], state=State.STOPPING), pods.now[1])
        await present(kube, 1)
        (task,) = owed()
        await asyncio.wait([task], timeout=5)
    assert [each["spec"]["instanceID"] for each in kube.things("peerpods")] == ["i-2"]


async def test_a_pod_of_the_same_name_on_another_node_is_not_the_owner(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod(nodeName="worker-2"))
    await cluster.created(things.record())
    assert kube.things("peerpods") == []


async def test_one_that_is_not_made_when_the_machine_goes_is_never_made(kube: KubeServer, api: Api):
    await kube.seed(things.pod())
    cluster = Cluster(api, replace(PLACE, limit=-1))
    async with cluster.joined(NO_PODS):
        kube.hooks.append(Hook("create", "peerpods", lambda: refuse(500)))
        await cluster.created(things.record())
        assert owed()
        await cluster.deleted(things.record())
        assert not owed()
    assert kube.things("peerpods") == []


async def test_what_an_earlier_adaptor_could_not_put_down_is_put_down(
    kube: KubeServer, api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "PAUSE", 0.01)
    await kube.seed(things.pod())
    pods = SimpleNamespace(records=(things.record(), replace(things.record("", "2" * 64), name="other")))
    async with Cluster(api, replace(PLACE, limit=-1)).joined(pods):
        await present(kube, 1)


async def test_a_pod_that_has_gone_has_no_peerpod_and_is_not_waited_for(kube: KubeServer, api: Api):
    await Cluster(api, PLACE).created(things.record())
    assert kube.things("peerpods") == []
    assert not owed()


async def test_sandboxes_whose_labels_are_the_same_have_a_peerpod_each(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    other = things.SANDBOX[:-1] + "0"
    await cluster.created(things.record())
    await cluster.created(things.record("i-2", other))
    await cluster.deleted(things.record("i-2", other))
    assert [each["spec"]["instanceID"] for each in kube.things("peerpods")] == ["i-1"]


async def test_when_the_machine_has_gone_so_has_the_peerpod_though_the_pod_is_gone_too(kube: KubeServer, api: Api):
    await kube.seed(things.pod())
    await Cluster(api, PLACE).created(things.record())
    await kube.store.delete(kind_of("pods"), things.NAMESPACE, "web")
    assert kube.things("peerpods")
    await Cluster(api, PLACE).deleted(things.record())
    assert kube.things("peerpods") == []


async def test_the_finalizers_of_others_stay(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    await cluster.created(things.record())
    (made,) = kube.things("peerpods")
    made["metadata"]["finalizers"] = ["example.com/first", FINALIZER, "example.com/last"]
    kind = kind_of("peerpods")
    await kube.store.update(kind, things.NAMESPACE, made["metadata"]["name"], made)
    await cluster.deleted(things.record())
    (left,) = kube.things("peerpods")
    assert left["metadata"]["finalizers"] == ["example.com/first", "example.com/last"]
    assert left["metadata"]["deletionTimestamp"]


async def test_a_peerpod_that_others_change_meanwhile_is_released_all_the_same(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    await cluster.created(things.record())

    async def interfere() -> None:
        (thing,) = kube.things("peerpods")
        thing["metadata"]["finalizers"].insert(0, "example.com/first")
        kind = kind_of("peerpods")
        await kube.store.update(kind, things.NAMESPACE, thing["metadata"]["name"], thing)

    kube.hooks.append(Hook("patch", "peerpods", interfere))
    await cluster.deleted(things.record())
    (left,) = kube.things("peerpods")
    assert left["metadata"]["finalizers"] == ["example.com/first"]


async def test_a_failure_is_an_event_of_the_pod(kube: KubeServer, cluster: Cluster):
    pod = await kube.seed(things.pod())
    error = ProviderError(Fault.FATAL, "image ami-0 does not exist", code="InvalidAMIID", hint="set PODVM_AMI_ID")
    await cluster.failed(Failure.of(things.record(), error))
    (event,) = kube.things("events")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "PeerPodFailed", 1)
    assert event["message"] == "image ami-0 does not exist [InvalidAMIID] (set PODVM_AMI_ID)"
    assert event["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert event["source"] == {"component": "cloud-api-adaptor", "host": things.NODE}
    assert event["reportingComponent"] == "cloud-api-adaptor"


async def test_a_pod_that_cannot_even_be_announced_has_an_event_too(
    kube: KubeServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await kube.seed(things.pod())
    node = Node(tmp_path)
    node.observer = cluster

    async def inspect(netns: Path) -> PodNetwork:
        raise TunnelError(f"{netns} has no default route")

    monkeypatch.setattr(node.tunnel, "inspect", inspect)
    async with node.adaptor() as pods, channel(RemoteHypervisor(pods)) as client:
        request = hv.CreateVMRequest(id="1" * 64, networkNamespacePath=str(node.netns))
        request.annotations["io.kubernetes.cri.sandbox-name"] = "web"
        request.annotations["io.kubernetes.cri.sandbox-namespace"] = things.NAMESPACE
        for text in ("", "no TOML"):
            request.annotations["io.katacontainers.config.hypervisor.cc_init_data"] = text
            with pytest.raises(StatusError):
                await HypervisorClient(client).CreateVM(request)
    route, initdata = sorted(each["message"] for each in kube.things("events"))  # a path goes before a word
    assert initdata.startswith("annotation io.katacontainers.config.hypervisor.cc_init_data: initdata is no TOML")
    assert route == f"{node.netns} has no default route"


async def test_the_same_failure_of_another_try_is_counted_and_another_failure_is_not(kube: KubeServer, api: Api):
    await kube.seed(things.pod())
    for number in range(3):
        record = things.record(f"i-{number}", f"{number}" * 64)
        await Cluster(api, PLACE).failed(Failure.of(record, AdaptorError(f"{record.instance_name} has no address")))
    await Cluster(api, PLACE).failed(NO_CAPACITY)
    assert sorted((each["count"], each["message"]) for each in kube.things("events")) == [
        (1, "no capacity"),
        (3, "podvm-web-22222222 has no address"),
    ]


async def test_an_event_that_another_adaptor_counts_meanwhile_is_counted_once_more(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    kind = kind_of("events")

    async def count() -> None:
        (event,) = kube.things("events")
        event["count"] += 1
        await kube.store.update(kind, things.NAMESPACE, event["metadata"]["name"], event)

    await cluster.failed(NO_CAPACITY)
    kube.hooks.append(Hook("patch", "events", count))
    await cluster.failed(NO_CAPACITY)
    (event,) = kube.things("events")
    assert event["count"] == 3


async def test_a_long_message_is_cut_where_kubernetes_would_refuse_it(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    await cluster.failed(replace(NO_CAPACITY, message="ä" * 5000))
    (event,) = kube.things("events")
    assert len(event["message"].encode()) <= 1024
    assert event["message"].endswith("ä…")


async def test_pull_secrets_are_those_of_the_service_account_and_of_the_pod_which_go_before(
    kube: KubeServer, cluster: Cluster
):
    await kube.seed(things.pod(serviceAccountName="seller", imagePullSecrets=[{"name": "own"}, {"name": "gone"}]))
    await kube.seed(things.account("seller", "shared"))
    await kube.seed(things.secret("shared", **{"a.io": "b25l", "b.io": "b25l"}))
    await kube.seed(things.secret("own", **{"b.io": "dHdv"}))
    text = await cluster.auth_json(things.NAMESPACE, "web")
    assert json.loads(text) == {"auths": {"a.io": {"auth": "b25l"}, "b.io": {"auth": "dHdv"}}}


async def test_a_pod_without_pull_secrets_has_none(kube: KubeServer, cluster: Cluster):
    await kube.seed(things.pod())
    await kube.seed(things.account())
    assert await cluster.auth_json(things.NAMESPACE, "web") == ""
    assert await cluster.auth_json(things.NAMESPACE, "nobody") == ""


def _asks(cluster: Cluster) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: cluster.created(things.record()),
        lambda: cluster.failed(NO_CAPACITY),
        lambda: cluster.deleted(things.record()),
        lambda: cluster.auth_json(things.NAMESPACE, "web"),
    ]


async def test_without_an_api_server_pods_live_on(kube: KubeServer, cluster: Cluster, caplog):
    await kube.stop()
    for ask in _asks(cluster):
        caplog.clear()
        assert not await ask()
        assert "the API server cannot be reached" in caplog.text


async def test_an_api_server_that_does_not_answer_holds_up_no_pod(
    kube: KubeServer, cluster: Cluster, caplog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "TIMEOUT", 0.05)
    for ask in _asks(cluster):
        for verb, resource in (("get", "pods"), ("list", "peerpods")):
            kube.hooks.append(Hook(verb, resource, asyncio.Event().wait))
        caplog.clear()
        async with asyncio.timeout(5):
            assert not await ask()
        assert "has not answered" in caplog.text
        kube.hooks.clear()


async def test_what_no_role_allows_is_put_down_with_the_verb(kube: KubeServer, cluster: Cluster, caplog):
    kube.rules = []
    for ask in _asks(cluster):
        caplog.clear()
        assert not await ask()
        assert "a role must allow verb" in caplog.text


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_failures_of_the_api_server_are_put_down(kube: KubeServer, cluster: Cluster, caplog, code: int):
    await kube.seed(things.pod())
    kube.hooks.append(Hook("create", "peerpods", lambda: refuse(code)))
    await cluster.created(things.record())
    assert "create peerpods shop: the API server refuses: etcd says InternalError" in caplog.text


async def test_the_role_allows_what_the_adaptor_asks_for_and_nothing_else(kube: KubeServer, api: Api, tmp_path: Path):
    await kube.seed(things.node())
    await kube.seed(things.pod(imagePullSecrets=[{"name": "own"}]))
    await kube.seed(things.account())
    await kube.seed(things.secret("own", **{"b.io": "dHdv"}))
    cluster = Cluster(api, replace(PLACE, probe=probe.Place(str(tmp_path / "socket"))))
    async with cluster.joined(NO_PODS):
        await cluster.auth_json(things.NAMESPACE, "web")
        await cluster.created(things.record())
        for _ in range(2):
            await cluster.failed(NO_CAPACITY)
        kube.hooks.append(Hook("patch", "peerpods", lambda: refuse(409)))
        await cluster.deleted(things.record())
        await cluster.waits(WAITING)
        await cluster.waited(WAITING)
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "socket")
        async with server:
            startup = probe.Startup(api, things.NODE, probe.Place(str(tmp_path / "socket")), None, NOW)
            assert "pod shop/web is not Ready" in await startup.missing()
    assert kube.things("peerpods") == []
    asked = {(each.verb, each.group, each.resource) for each in kube.asked}
    allowed = {
        (verb, group, resource)
        for rule in kube.rules
        for verb in rule.verbs
        for group in rule.groups
        for resource in rule.resources
    }
    assert asked == allowed


async def test_what_is_said_expressly_goes_before_the_cluster_that_we_are_in(
    kube: KubeServer, api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda *_: pytest.fail("it was asked for"))
    await kube.seed(things.pod())
    async with connected() as expressly:
        assert (await expressly.get(Pod, "web", things.NAMESPACE)).metadata.name == "web"


async def test_without_any_api_server_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"the API server is not known: .*; give the pod a service account, or set"):
        await connected().__aenter__()
