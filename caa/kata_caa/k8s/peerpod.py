"""The PeerPod object: that a pod has a machine in the cloud, in the API server's words.

It goes with its pod, but not before whoever deletes the machine has taken its finalizer away.
Source: cloud-api-adaptor `src/peerpod-ctrl/api/v1alpha1`, `pkg/adaptor/k8sops/peerpod.go`.
"""

from __future__ import annotations

import secrets
from typing import Any

from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource

from kata_caa.k8s.api import Api, ClusterError
from kata_caa.pool.machine import Machine
from kata_caa.providers.api import Target
from kata_caa.record import PodRecord

GROUP, API_VERSION = "confidentialcontainers.org", "v1alpha1"
FINALIZER = "peer.pod/finalizer"
# Ours: by the label it is found again after a restart of the adaptor, and the annotations say whose machine it is.
SANDBOX_LABEL = "peerpods.kata-py.io/sandbox"
SANDBOX_ANNOTATION = "peerpods.kata-py.io/sandbox-id"
MACHINE_ANNOTATION = "peerpods.kata-py.io/machine"
MACHINE_ID_ANNOTATION = "peerpods.kata-py.io/machine-id"  # where the cloud knows it by another id than the sandbox's

PeerPod = create_namespaced_resource(GROUP, API_VERSION, "PeerPod", "peerpods")
PeerPodObject = GenericNamespacedResource

_LABEL_MAX = 63  # characters
_NAME_MAX = 253
_RELEASE_TRIES = 5


def sandbox_label(sandbox_id: str) -> str:
    """A sandbox's id as a label's value, which is shorter than some ids."""
    return sandbox_id[:_LABEL_MAX].rstrip("-_.")


def body(record: PodRecord, provider: str, pod_uid: str) -> dict[str, Any]:
    """The object of a pod's machine; its name has five random characters, as upstream's."""
    suffix = f"-resource-{secrets.token_hex(3)[:5]}"
    target = record.target
    annotations = {SANDBOX_ANNOTATION: record.sandbox_id, MACHINE_ANNOTATION: target.name}
    if target.sandbox_id != record.sandbox_id:  # it has waited for the pod, with tags of its own
        annotations[MACHINE_ID_ANNOTATION] = target.sandbox_id
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "PeerPod",
        "metadata": {
            "name": record.name[: _NAME_MAX - len(suffix)].rstrip("-.") + suffix,
            "namespace": record.namespace,
            "labels": {SANDBOX_LABEL: sandbox_label(record.sandbox_id)},
            "annotations": annotations,
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


def waiting_body(machine: Machine, provider: str, node: str, node_uid: str) -> dict[str, Any]:
    """The object of a machine that waits for a pod: it goes with its node. Its namespace is the adaptor's own."""
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "PeerPod",
        "metadata": {
            "name": machine.name,
            "labels": {SANDBOX_LABEL: sandbox_label(machine.id)},
            "annotations": {SANDBOX_ANNOTATION: machine.id, MACHINE_ANNOTATION: machine.name},
            "finalizers": [FINALIZER],
            # No controller: of those that one has, the controller of PeerPods leaves the youngest alone.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
        },
        "spec": {"cloudProvider": provider, "instanceID": machine.instance_id},
    }


def sandbox_of(thing: PeerPodObject) -> str:
    """The sandbox whose machine an object stands for; empty for one that upstream's adaptor made."""
    return str((thing["metadata"].get("annotations") or {}).get(SANDBOX_ANNOTATION, ""))


def target_of(thing: PeerPodObject) -> Target:
    """The machine that an object stands for; of one that upstream's adaptor made, the cloud's id is all there is."""
    annotations = thing["metadata"].get("annotations") or {}
    spec = thing.get("spec") or {}
    return Target(
        annotations.get(MACHINE_ID_ANNOTATION, "") or sandbox_of(thing),
        annotations.get(MACHINE_ANNOTATION, ""),
        spec.get("instanceID", ""),
    )


async def release(api: Api, thing: PeerPodObject) -> None:
    """Take our finalizer from an object, and leave others'. One that has gone, or has none, is no error.

    Raises:
        ClusterError: It cannot be changed, or others change it all the time.
    """
    metadata = thing["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    for _ in range(_RELEASE_TRIES):
        finalizers = metadata.get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        path = f"/metadata/finalizers/{finalizers.index(FINALIZER)}"
        try:
            await api.patch(
                PeerPod,
                name,
                [{"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}],
                namespace,
            )
            return
        except ClusterError as error:
            if error.missing:
                return
            if not (error.conflicting or error.unfit):
                raise
        try:
            metadata = (await api.get(PeerPod, name, namespace))["metadata"]
        except ClusterError as lost:
            if lost.missing:
                return
            raise
    raise ClusterError(f"peerpod {namespace}/{name} was changed by others {_RELEASE_TRIES} times in a row", 409)
