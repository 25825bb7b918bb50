"""What becomes of a peer pod's spec."""

from __future__ import annotations

import base64
import copy
import json
from decimal import Decimal
from typing import Any

import pytest

from kata_caa.errors import MalformedConfig
from kata_caa.k8s.mutation import Rules, patch, review
from kata_caa.k8s.quantity import parse

HYPERVISOR = "io.katacontainers.config.hypervisor."
VM = "kata.peerpods.io/vm"
MACHINE = {"requests": {VM: "1"}, "limits": {VM: "1"}}


def pod(*containers: dict[str, Any], init: list[dict[str, Any]] | None = None, **annotations: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "runtimeClassName": "kata-remote",
        "containers": [{"name": f"c{i}", "resources": each} for i, each in enumerate(containers)],
    }
    if init is not None:
        spec["initContainers"] = [{"name": f"i{i}", "resources": each} for i, each in enumerate(init)]
    return {"metadata": {"annotations": annotations} if annotations else {}, "spec": spec}


def patched(before: dict[str, Any], rules: Rules | None = None) -> dict[str, Any]:
    """Apply a patch as RFC 6902 has it, as far as ours go."""
    after = copy.deepcopy(before)
    for operation in patch(before, rules or Rules()):
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
        ]
        place: Any = after
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        assert operation["op"] in ("add", "replace")
        assert operation["op"] == "add" or last in place
        place[last] = operation["value"]
    return after


def annotations(before: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = patched(before)["metadata"].get("annotations", {})
    return {key.removeprefix(HYPERVISOR): value for key, value in found.items()}


def asks(cpu: str | None = None, memory: str | None = None, limits: dict[str, str] | None = None) -> dict[str, Any]:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}


def test_the_first_container_asks_for_a_machine_and_the_others_for_nothing():
    after = patched(pod(asks("1", "1Gi"), asks("1"), init=[asks("2"), {}]))
    assert [each["resources"] for each in after["spec"]["containers"]] == [MACHINE, {}]
    assert [each["resources"] for each in after["spec"]["initContainers"]] == [{}, {}]


def test_a_pod_of_another_class_is_left_alone():
    other = pod(asks("1"))
    other["spec"]["runtimeClassName"] = "kata"
    assert patch(other, Rules()) == []
    del other["spec"]["runtimeClassName"]
    assert patch(other, Rules()) == []


def test_a_pod_that_has_been_changed_is_left_alone():
    assert patch(patched(pod(asks("1"), asks("1"))), Rules()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_another_webhook_adds_afterwards_comes_on_top(place: int):
    before = patched(pod(asks("3", "8Gi"), asks("1")))
    before["spec"]["containers"].insert(place, {"name": "sidecar", "resources": asks("100m", "64Mi")})
    after = patched(before)
    assert annotations(before) == {"default_vcpus": "5", "default_memory": "8256"}
    assert [each["resources"] for each in after["spec"]["containers"]] == [MACHINE, {}, {}]
    assert patch(after, Rules()) == []


def test_a_size_that_is_no_number_cannot_be_added_to():
    before = pod(MACHINE, asks("1"), **{f"{HYPERVISOR}default_vcpus": "many"})
    with pytest.raises(MalformedConfig, match="default_vcpus is 'many', which is no number"):
        patch(before, Rules())


@pytest.mark.parametrize(
    ("containers", "init", "said"),
    [
        ([asks("500m", "100Mi")], None, {"default_vcpus": "1", "default_memory": "100"}),
        ([asks("1500m", "1000k")], None, {"default_vcpus": "2", "default_memory": "1"}),
        ([asks("1", "1Gi"), asks("1", "512Mi")], None, {"default_vcpus": "2", "default_memory": "1536"}),
        ([asks("1")], [asks("2", "1Gi")], {"default_vcpus": "3", "default_memory": "1024"}),
        ([asks("1", None, {"cpu": "3"})], None, {"default_vcpus": "3"}),
        ([asks("3", None, {"cpu": "1"})], None, {"default_vcpus": "3"}),
        ([asks(None, None, {"cpu": "3"})], None, {}),
        ([{"requests": {"nvidia.com/gpu": "1"}}, {"requests": {"nvidia.com/gpu": "1"}}], None, {"default_gpus": "2"}),
        ([{}], None, {}),
    ],
)
def test_what_the_containers_ask_for_becomes_the_machine_s_size(containers, init, said):
    assert annotations(pod(*containers, init=init)) == said


def test_annotations_of_these_names_are_overwritten_where_there_is_a_sum_and_others_stay():
    before = pod(asks("2"), **{f"{HYPERVISOR}default_vcpus": "9", f"{HYPERVISOR}default_memory": "7", "a/b": "c"})
    assert annotations(before) == {"default_vcpus": "2", "default_memory": "7", "a/b": "c"}


@pytest.mark.parametrize("name", ["TARGET_RUNTIMECLASS", "TARGET_RUNTIME_CLASS"])
def test_class_and_resource_come_from_the_environment_by_either_name(name):
    rules = Rules.of({name: "peer", "POD_VM_EXTENDED_RESOURCE": "example.com/vm"})
    assert rules == Rules("peer", "example.com/vm")
    before = pod({})
    before["spec"]["runtimeClassName"] = "peer"
    assert patched(before, rules)["spec"]["containers"][0]["resources"]["limits"] == {"example.com/vm": "1"}
    assert Rules.of({}) == Rules()


def asked(object: object, **request: str) -> bytes:
    return json.dumps({"kind": "AdmissionReview", "request": {"uid": "u-1", "object": object, **request}}).encode()


def test_a_review_is_answered_with_the_patch():
    answer = json.loads(review(asked(pod(asks("1"))), Rules()))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u-1", True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == patch(pod(asks("1")), Rules())


def test_a_review_of_another_pod_is_allowed_without_a_patch():
    assert json.loads(review(asked({"spec": {}}), Rules()))["response"] == {"uid": "u-1", "allowed": True}


def test_a_pod_that_is_there_already_is_left_as_it_is():
    assert "patch" in json.loads(review(asked(pod(asks("1")), operation="CREATE"), Rules()))["response"]
    answer = json.loads(review(asked(pod(asks("1")), operation="UPDATE"), Rules()))
    assert answer["response"] == {"uid": "u-1", "allowed": True}


def test_a_pod_that_cannot_be_understood_is_refused_with_the_reason():
    response = json.loads(review(asked(pod(asks("many"))), Rules()))["response"]
    assert not response["allowed"]
    assert "'many' is no quantity" in response["status"]["message"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"request": {"uid": "x"}}'])
def test_what_is_no_review_is_an_error(text):
    with pytest.raises(MalformedConfig):
        review(text, Rules())


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("500m", "0.5"), ("1Gi", 1 << 30), ("1.5", "1.5"), ("2e3", 2000), ("1k", 1000), (".5", "0.5"),
     ("1E", 10**18), ("1Ei", 1 << 60), ("1e-3", "0.001"), ("1.", 1)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_does(text, value):
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1KI", "1e", "0x1"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(MalformedConfig):
        parse(text)
