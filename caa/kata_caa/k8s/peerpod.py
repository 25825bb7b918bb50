"""The PeerPod object: that a pod has a machine in the cloud, in the API server's words. Pure.

It goes with its pod, but not before whoever deletes the machine has taken its finalizer away.
Source: cloud-api-adaptor `src/peerpod-ctrl/api/v1alpha1`, `pkg/adaptor/k8sops/peerpod.go`.
"""

from __future__ import annotations

import secrets
from typing import Any

from lightkube.generic_resource import create_namespaced_resource

from kata_caa.record import PodRecord

GROUP, API_VERSION = "confidentialcontainers.org", "v1alpha1"
FINALIZER = "peer.pod/finalizer"
SANDBOX_LABEL = "peerpods.kata-py.io/sandbox"  # ours: finds it again after a restart of the adaptor

PeerPod = create_namespaced_resource(GROUP, API_VERSION, "PeerPod", "peerpods")

_LABEL_MAX = 63  # characters


def sandbox_label(sandbox_id: str) -> str:
    """A sandbox's id as a label's value, which is shorter than some ids."""
    return sandbox_id[:_LABEL_MAX].rstrip("-_.")


def body(record: PodRecord, provider: str, pod_uid: str) -> dict[str, Any]:
    """The object of a pod's machine; its name has five random characters, as upstream's."""
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "PeerPod",
        "metadata": {
            "name": f"{record.name}-resource-{secrets.token_hex(3)[:5]}",
            "namespace": record.namespace,
            "labels": {SANDBOX_LABEL: sandbox_label(record.sandbox_id)},
            "finalizers": [FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": "v1", "kind": "Pod", "name": record.name, "uid": pod_uid,
                    "controller": True, "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {"cloudProvider": provider, "instanceID": record.instance_id},
    }  # fmt: skip


RELEASE = [{"op": "remove", "path": "/metadata/finalizers"}]
"""The JSON patch that lets the object go."""
