"""The manifests of a node's own sandboxes: Kubernetes' models take them, and they fit each other and the monitor."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from kata_py.monitor import command
from kata_py.sandbox import sockets
from tests.kube import schema
from tests.kube.rbac import NODE

FIGURES = NODE.parents[2] / "docs" / "performance.md"
PROMETHEUS = "monitoring.coreos.com/v1"  # the operator's, not Kubernetes' own
DOCUMENTS = [each for path in sorted(NODE.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (each for each in DOCUMENTS if each["kind"] == kind)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each["kind"])
def test_each_is_of_its_kind(document: dict[str, Any]) -> None:
    if document["apiVersion"] != PROMETHEUS:
        schema.check(document, f"V1{document['kind']}")
    cluster_wide = document["kind"] == "RuntimeClass"
    assert document["metadata"].get("namespace") == (None if cluster_wide else "kube-system")


def test_the_runtime_class_is_the_handlers_and_has_the_overhead_that_was_measured() -> None:
    runtime_class = of_kind("RuntimeClass")
    assert runtime_class["metadata"]["name"] == runtime_class["handler"] == "kata"
    (most,) = re.findall(r"\| overhead: all of it.*? MiB \([0-9]+–([0-9]+)\)", FIGURES.read_text())
    tens = -(-int(most) // 10)
    assert runtime_class["overhead"]["podFixed"] == {"cpu": "250m", "memory": f"{tens}0Mi"}
    on = of_kind("DaemonSet")["spec"]["template"]["spec"]["nodeSelector"]
    assert on == runtime_class["scheduling"]["nodeSelector"]


def test_the_monitor_takes_its_arguments_and_sees_what_it_reads() -> None:
    pod = of_kind("DaemonSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parsed = command._parser().parse_args(container["args"])
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounted == {each["name"]: each["hostPath"]["path"] for each in pod["volumes"]}
    for needed in (*sockets.ROOTS, parsed.runtime_endpoint):
        assert any(needed.is_relative_to(path) for path in mounted.values()), needed
    assert parsed.listen_address == ("", container["ports"][0]["containerPort"])
    assert pod["hostPID"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_service_policy_and_scrape_find_the_monitors_port() -> None:
    template = of_kind("DaemonSet")["spec"]["template"]
    labels, (container,) = template["metadata"]["labels"], template["spec"]["containers"]
    service, policy, scrape = (of_kind(kind) for kind in ("Service", "NetworkPolicy", "ServiceMonitor"))
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    assert scrape["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"] == policy["spec"]["ingress"][0]["ports"][0]["port"]
    assert [each["port"] for each in scrape["spec"]["endpoints"]] == [port["name"]]
