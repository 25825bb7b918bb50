"""What the runtime says of a pod."""

from __future__ import annotations

import base64
import gzip

import pytest

from kata_caa.errors import InvalidRequest
from kata_caa.instance import NAME_MAX, instance_name
from kata_caa.request import read

HYPERVISOR = "io.katacontainers.config.hypervisor."
NAME, NAMESPACE = "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"
POD = {NAME: "web", NAMESPACE: "shop"}


def test_a_pod_is_read_with_what_it_asks_for():
    asked = read(
        "id",
        {
            **POD,
            f"{HYPERVISOR}machine_type": "m6a.large",
            f"{HYPERVISOR}image": "ami-1",
            f"{HYPERVISOR}default_vcpus": "2",
            f"{HYPERVISOR}default_memory": "4096",
            f"{HYPERVISOR}default_gpus": "1",
        },
        "/run/netns/pod",
    )
    assert (asked.name, asked.namespace, asked.netns) == ("web", "shop", "/run/netns/pod")
    spec = asked.spec
    assert (spec.instance_type, spec.image, spec.vcpus, spec.memory, spec.gpus) == ("m6a.large", "ami-1", 2, 4096, 1)
    assert asked.initdata == ""


def test_cri_o_s_form_of_a_name_is_understood():
    assert read("id", {**POD, NAME: "k8s_web_shop_0a-1_0"}, "/n").name == "web"
    assert read("id", {**POD, NAME: "k8s"}, "/n").name == "k8s"


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "0x10", "9" * 20])
def test_a_number_that_is_none_counts_as_zero(text):
    assert read("id", {**POD, f"{HYPERVISOR}default_vcpus": text}, "/n").spec.vcpus == 0


def test_initdata_is_packed_again_and_the_same_text_gives_the_same_bytes():
    annotations = {**POD, f"{HYPERVISOR}cc_init_data": 'algorithm = "sha256"\nversion = "0.1.0"'}
    packed = read("id", annotations, "/n").initdata
    assert gzip.decompress(base64.b64decode(packed)).decode() == annotations[f"{HYPERVISOR}cc_init_data"]
    assert read("id", annotations, "/n").initdata == packed


@pytest.mark.parametrize(("text", "why"), [("no", "no TOML"), ('version = "1"', "algorithm cannot be None")])
def test_initdata_that_the_machine_could_not_read_is_refused_with_the_annotations_name(text: str, why: str):
    with pytest.raises(InvalidRequest, match=f"cc_init_data: initdata.*{why}"):
        read("id", {**POD, f"{HYPERVISOR}cc_init_data": text}, "/n")


@pytest.mark.parametrize(
    ("id", "annotations", "netns", "said"),
    [
        ("", POD, "/n", "is no sandbox id"),
        ("../up", POD, "/n", "is no sandbox id"),
        ("a" * 129, POD, "/n", "is no sandbox id"),
        ("id", {NAMESPACE: "shop"}, "/n", f"{NAME} is missing"),
        ("id", {NAME: "web"}, "/n", f"{NAMESPACE} is missing"),
        ("id", POD, "", "networkNamespacePath is empty"),
    ],
)
def test_a_request_that_lacks_what_is_needed_is_refused(id, annotations, netns, said):
    with pytest.raises(InvalidRequest, match=said):
        read(id, annotations, netns)


@pytest.mark.parametrize(
    ("pod", "id", "name"),
    [
        ("web", "0123456789", "podvm-web-01234567"),
        ("Web.Shop_1", "ABCDEF", "podvm-web-shop-1-abcdef"),
        ("a" * 100, "0123456789", "podvm-" + "a" * 48 + "-01234567"),
    ],
)
def test_a_machine_s_name_is_a_dns_label_with_pod_and_sandbox_in_it(pod, id, name):
    assert instance_name(pod, id) == name
    assert len(name) <= NAME_MAX
