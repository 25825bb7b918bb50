"""Objects as a cluster has them."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from kata_caa.apf import PodNetwork
from kata_caa.providers.api import InstanceSpec
from kata_caa.record import PodRecord

NODE = "worker-1"
NAMESPACE = "shop"
SANDBOX = "0123456789abcdef" * 4  # as containerd's, longer than a label's value


def node(**annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "annotations": {"volumes.kubernetes.io/x": "true", **annotations}},
        "status": {"capacity": {"cpu": "4", "memory": "8Gi"}, "allocatable": {"cpu": "4", "memory": "8Gi"}},
    }


def pod(name: str = "web", *, runtime_class: str = "kata-remote", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "runtimeClassName": runtime_class,
            "nodeName": NODE,
            "containers": [{"name": "c", "image": "registry.example/web:1"}],
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def ready(thing: dict[str, Any], since: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    return {**thing, "status": {"phase": "Running", "conditions": [condition]}}


def account(name: str = "default", *secrets: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "imagePullSecrets": [{"name": each} for each in secrets],
    }


def secret(name: str, **auths: str) -> dict[str, Any]:
    content = json.dumps({"auths": {registry: {"auth": auth} for registry, auth in auths.items()}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": b64encode(content.encode()).decode()},
    }


def record(instance_id: str = "i-1", sandbox_id: str = SANDBOX) -> PodRecord:
    return PodRecord(
        sandbox_id=sandbox_id,
        name="web",
        namespace=NAMESPACE,
        netns="/run/netns/none",
        instance_name=f"podvm-web-{sandbox_id[:8]}",
        token="t",
        material="m",
        spec=InstanceSpec(),
        instance_id=instance_id,
        addresses=("192.0.2.1",),
        network=PodNetwork(),
    )
