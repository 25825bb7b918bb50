"""What must change in a CreateContainer on its way to a pod VM: what only the node can know. Pure but for one look.

Source: cloud-api-adaptor `pkg/adaptor/proxy/service.go`, `pkg/util/cdi.go`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from pathlib import Path

from kata_protos import agent_pb2

SERVICE, METHOD = "grpc.AgentService", "CreateContainer"
DIRECT_VOLUMES = Path("/run/kata-containers/shared/direct-volumes")
TARGET_PATHS = "io.confidentialcontainers.org.peerpodvolumes.target_path"
_CSI = "/volumes/kubernetes.io~csi/"
_GPUS = "io.katacontainers.config.hypervisor.default_gpus"
_CDI, _ALL_GPUS = "cdi.k8s.io/peer-pods", "nvidia.com/gpu=all"


def create_container(payload: bytes, direct_volumes: Path = DIRECT_VOLUMES) -> bytes | None:
    """The request with what the node adds; None where that is nothing.

    Volumes of storage drivers that were handed to the VM directly are named, so that it waits for them; and a pod that
    asked for graphics processors gets all of its VM's.
    """
    request = agent_pb2.CreateContainerRequest.FromString(payload)
    annotations = request.OCI.Annotations
    volumes = [
        mount.source
        for mount in request.OCI.Mounts
        if _CSI in mount.source and _is_direct(mount.source, direct_volumes)
    ]
    if volumes:
        present = annotations.get(TARGET_PATHS, "")
        annotations[TARGET_PATHS] = ",".join([*filter(None, [present]), *volumes])
    gpus = annotations.get(_GPUS, "") not in ("", "0")
    if gpus:
        annotations[_CDI] = _ALL_GPUS
    return request.SerializeToString() if volumes or gpus else None


def _is_direct(source: str, direct_volumes: Path) -> bool:
    return (direct_volumes / urlsafe_b64encode(source.encode()).decode()).is_dir()
