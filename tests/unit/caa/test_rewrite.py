"""What changes in a CreateContainer on its way to a pod VM."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from pathlib import Path

from kata_caa.rewrite import TARGET_PATHS, create_container
from kata_protos import agent_pb2, oci_pb2

CSI = "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pvc-1/mount"
GPUS = "io.katacontainers.config.hypervisor.default_gpus"


def request(*sources: str, **annotations: str) -> bytes:
    spec = oci_pb2.Spec(Mounts=[oci_pb2.Mount(source=source, destination="/d") for source in sources])
    for key, value in annotations.items():
        spec.Annotations[key] = value
    return agent_pb2.CreateContainerRequest(container_id="c1", OCI=spec).SerializeToString()


def annotations(payload: bytes | None) -> dict[str, str]:
    assert payload is not None
    changed = agent_pb2.CreateContainerRequest.FromString(payload)
    assert changed.container_id == "c1"
    return dict(changed.OCI.Annotations)


def test_a_request_without_any_of_it_passes_as_it_is(tmp_path: Path):
    assert create_container(request("/etc/hosts", CSI), tmp_path) is None
    assert create_container(request(**{GPUS: ""}), tmp_path) is None


def test_volumes_that_the_vm_has_itself_are_named(tmp_path: Path):
    (tmp_path / urlsafe_b64encode(CSI.encode()).decode()).mkdir()
    assert annotations(create_container(request(CSI, "/etc/hosts"), tmp_path)) == {TARGET_PATHS: CSI}
    assert annotations(create_container(request(CSI, **{TARGET_PATHS: "/a"}), tmp_path)) == {TARGET_PATHS: f"/a,{CSI}"}


def test_a_pod_that_asked_for_gpus_gets_all_of_its_vm_s(tmp_path: Path):
    assert (
        annotations(create_container(request(**{GPUS: "1"}), tmp_path))["cdi.k8s.io/peer-pods"] == "nvidia.com/gpu=all"
    )
