"""The API server of the tests, as Kubernetes' own client sees it: what it reads, writes, watches and is refused.

The first part asks nothing but what any API server does: with KATA_PY_TEST_KUBECONFIG it asks that one, which should be
for tests alone, as there are objects left on it: namespace `shop`, node `worker-1`, our CRD and runtime class.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import kubernetes.client as official
import pytest
from kubernetes import config, utils, watch
from kubernetes.client.exceptions import ApiException

from tests.kube import things
from tests.kube.rbac import Rule, documents
from tests.kube.server import KubeServer, kube_server

PEER = ("confidentialcontainers.org", "v1alpha1", things.NAMESPACE, "peerpods")


REAL = os.environ.get("KATA_PY_TEST_KUBECONFIG", "")
BOUND = 30.0  # seconds that a garbage collector may take


@pytest.fixture
async def kube() -> AsyncIterator[KubeServer]:
    async with kube_server() as server:
        yield server


@pytest.fixture
async def client(kube: KubeServer, tmp_path: Path) -> AsyncIterator[official.ApiClient]:
    """Of the fake."""
    path = kube.kubeconfig(tmp_path / "kubeconfig")
    made = await asyncio.to_thread(config.new_client_from_config, str(path))
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
async def anyone(client: official.ApiClient) -> AsyncIterator[official.ApiClient]:
    """Of whichever API server is asked."""
    if not REAL:
        yield client
        return
    real = await asyncio.to_thread(config.new_client_from_config, REAL)
    await asyncio.to_thread(prepare, real)
    yield real
    await asyncio.to_thread(real.close)


def prepare(client: official.ApiClient) -> None:
    """Have a real API server know what the fake knows from its beginning; what is there already stays."""
    kinds = ("Namespace", "CustomResourceDefinition", "RuntimeClass")
    wanted = [each for each in documents() if each["kind"] in kinds]
    wanted.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": things.NAMESPACE}})
    for each in wanted:
        try:
            utils.create_from_dict(client, each)
        except utils.FailToCreateError as error:
            if [failure.status for failure in error.api_exceptions] != [409]:
                raise
    core = official.CoreV1Api(client)
    for delete in (
        lambda: core.delete_node(things.NODE),
        lambda: core.delete_namespaced_pod("web", things.NAMESPACE, grace_period_seconds=0),
    ):
        with suppress(ApiException):
            delete()


async def node(client: official.ApiClient) -> dict[str, Any]:
    """A node with a capacity, and without its kubelet."""
    core = official.CoreV1Api(client)
    thing = things.node()
    await call(core.create_node, thing)
    change = [{"op": "add", "path": "/status", "value": thing["status"]}]
    made = await call(core.patch_node_status, things.NODE, change, _content_type="application/json-patch+json")
    return client.sanitize_for_serialization(made)


async def call(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    return await asyncio.to_thread(function, *args, **keywords)


def peerpod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "confidentialcontainers.org/v1alpha1",
        "kind": "PeerPod",
        "metadata": {"name": name, "finalizers": ["peer.pod/finalizer"]},
        "spec": {"cloudProvider": "aws", "instanceID": "i-1"},
    }


async def test_objects_are_made_read_listed_and_deleted(anyone: official.ApiClient):
    core = official.CoreV1Api(anyone)
    made = await call(core.create_namespaced_pod, things.NAMESPACE, things.pod())
    assert made.metadata.uid
    assert made.metadata.resource_version
    with pytest.raises(ApiException) as refused:
        await call(core.create_namespaced_pod, things.NAMESPACE, things.pod())
    assert refused.value.status == 409
    found = await call(core.list_pod_for_all_namespaces, field_selector=f"spec.nodeName={things.NODE}")
    assert [each.metadata.name for each in found.items] == ["web"]
    assert not (await call(core.list_pod_for_all_namespaces, field_selector="spec.nodeName=other")).items
    await call(core.delete_namespaced_pod, "web", things.NAMESPACE, grace_period_seconds=0)
    with pytest.raises(ApiException) as gone:
        await call(core.read_namespaced_pod, "web", things.NAMESPACE)
    assert gone.value.status == 404


async def test_a_status_is_changed_by_its_sub_resource_alone(anyone: official.ApiClient):
    core = official.CoreV1Api(anyone)
    await node(anyone)
    change = [{"op": "add", "path": "/status/capacity/kata.peerpods.io~1vm", "value": "10"}]
    after = await call(core.patch_node, things.NODE, change, _content_type="application/json-patch+json")
    assert "kata.peerpods.io/vm" not in after.status.capacity
    after = await call(core.patch_node_status, things.NODE, change, _content_type="application/json-patch+json")
    assert after.status.capacity["kata.peerpods.io/vm"] == "10"


async def test_a_patch_that_does_not_fit_changes_nothing(anyone: official.ApiClient):
    core = official.CoreV1Api(anyone)
    await node(anyone)
    change = [
        {"op": "add", "path": "/metadata/annotations/new", "value": "1"},
        {"op": "test", "path": "/metadata/annotations/none", "value": "1"},
    ]
    with pytest.raises(ApiException) as refused:
        await call(core.patch_node, things.NODE, change, _content_type="application/json-patch+json")
    assert refused.value.status == 422
    assert "new" not in (await call(core.read_node, things.NODE)).metadata.annotations


async def test_a_change_of_an_old_version_conflicts(anyone: official.ApiClient):
    core = official.CoreV1Api(anyone)
    before = await node(anyone)
    change = {"metadata": {"annotations": {"a": "b"}, "resourceVersion": before["metadata"]["resourceVersion"]}}
    merge = {"_content_type": "application/merge-patch+json"}
    await call(core.patch_node, things.NODE, change, **merge)
    change["metadata"]["annotations"] = {"a": "c"}
    with pytest.raises(ApiException) as refused:
        await call(core.patch_node, things.NODE, change, **merge)
    assert refused.value.status == 409


async def test_an_object_with_a_finalizer_stays_until_it_is_taken_away(anyone: official.ApiClient):
    custom = official.CustomObjectsApi(anyone)
    await call(custom.create_namespaced_custom_object, *PEER, peerpod("p"))
    await call(custom.delete_namespaced_custom_object, *PEER, "p")
    left = await call(custom.get_namespaced_custom_object, *PEER, "p")
    assert left["metadata"]["deletionTimestamp"]
    await call(
        custom.patch_namespaced_custom_object, *PEER, "p", {"metadata": {"finalizers": None}},
        _content_type="application/merge-patch+json",
    )  # fmt: skip
    with pytest.raises(ApiException) as gone:
        await call(custom.get_namespaced_custom_object, *PEER, "p")
    assert gone.value.status == 404


async def test_what_a_pod_owns_is_deleted_with_it(anyone: official.ApiClient):
    core, custom = official.CoreV1Api(anyone), official.CustomObjectsApi(anyone)
    owner = await call(core.create_namespaced_pod, things.NAMESPACE, things.pod())
    thing = peerpod("owned")
    thing["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": owner.metadata.uid, "controller": True}
    ]
    made = await call(custom.create_namespaced_custom_object, *PEER, thing)
    version = made["metadata"]["resourceVersion"]
    await call(core.delete_namespaced_pod, "web", things.NAMESPACE, grace_period_seconds=0)

    def changed() -> dict[str, Any]:
        stream = watch.Watch().stream(
            custom.list_namespaced_custom_object, *PEER, resource_version=version, timeout_seconds=int(BOUND)
        )
        found: dict[str, Any] = next(each["object"] for each in stream if each["object"]["metadata"]["name"] == "owned")
        return found

    assert (await call(changed))["metadata"]["deletionTimestamp"]
    await call(
        custom.patch_namespaced_custom_object, *PEER, "owned", {"metadata": {"finalizers": None}},
        _content_type="application/merge-patch+json",
    )  # fmt: skip


async def test_watchers_are_told_in_order_and_those_that_are_too_late_are_told_so(
    kube: KubeServer, client: official.ApiClient
):
    custom = official.CustomObjectsApi(client)
    version = str(kube.store.version)
    for name in ("a", "b"):
        await call(custom.create_namespaced_custom_object, *PEER, peerpod(name))
    await call(custom.delete_namespaced_custom_object, *PEER, "a")

    def told() -> list[tuple[str, str]]:
        stream = watch.Watch().stream(
            custom.list_namespaced_custom_object, *PEER, resource_version=version, timeout_seconds=1
        )
        return [
            (event["type"], event["object"]["metadata"]["name"]) for event, _ in zip(stream, range(3), strict=False)
        ]

    assert await call(told) == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a")]
    await kube.store.compact()
    with pytest.raises(ApiException) as refused:
        await call(told)
    assert refused.value.status == 410


async def test_what_no_role_allows_is_forbidden(kube: KubeServer, client: official.ApiClient):
    await kube.seed(things.node())
    kube.rules = [Rule(frozenset({"get"}), frozenset({""}), frozenset({"nodes"}))]
    core = official.CoreV1Api(client)
    await call(core.read_node, things.NODE)
    with pytest.raises(ApiException) as refused:
        await call(core.list_node)
    assert refused.value.status == 403


async def test_who_has_an_unknown_token_is_nobody(kube: KubeServer, tmp_path: Path):
    path = kube.kubeconfig(tmp_path / "kubeconfig", token="other")
    client = await asyncio.to_thread(config.new_client_from_config, str(path))
    with client, pytest.raises(ApiException) as unknown:
        await call(official.CoreV1Api(client).list_node)
    assert unknown.value.status == 401


@pytest.mark.parametrize("where", [("spec", "image"), ("metadata", "label")])
async def test_a_field_that_no_kind_has_is_an_error(kube: KubeServer, client: official.ApiClient, where):
    thing = things.pod()
    thing[where[0]][where[1]] = "x"
    with pytest.raises(ApiException) as refused:
        await call(official.CoreV1Api(client).create_namespaced_pod, things.NAMESPACE, thing)
    assert refused.value.status == 400
    assert f'unknown field "{where[1]}"' in json.loads(refused.value.body)["message"]
