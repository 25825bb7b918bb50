"""What the adaptor changes in the calls to a pod VM's agent: one of them, which it decodes; no other.

Source: cloud-api-adaptor `pkg/adaptor/proxy/service.go`, `pkg/util/cloud.go`. Its cloud volumes (annotation
`io.confidentialcontainers.org.cloud_volumes`) are refused: they need the order in which a provider has attached disks
to the machine, and no provider attaches any so far.
"""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from kata_protos import agent_pb2, oci_pb2
from kata_py.resource.blocking import off_loop
from kata_py.storage import direct
from kata_py.storage.errors import StorageError
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code

logger = logging.getLogger(__name__)

HOOKED: Final = (("grpc.AgentService", "CreateContainer"),)
"""The calls that are decoded."""

TARGET_PATH: Final = "io.confidentialcontainers.org.peerpodvolumes.target_path"
GPUS: Final = "io.katacontainers.config.hypervisor.default_gpus"
CDI: Final = "cdi.k8s.io/peer-pods"
CDI_DEVICES: Final = "nvidia.com/gpu=all"
GUEST_PULL: Final = "image_guest_pull"

_CSI: Final = "/volumes/kubernetes.io~csi/"
_CLOUD_VOLUME: Final = "cloud-volume-path"  # of a description's metadata: the disk, in the cloud's words
_NO_DISK: Final = (Path(), Path("/dev/zero"))  # the latter is what upstream's csi-wrapper says of what it mounts there


def rewrite_spec(spec: oci_pb2.Spec, is_direct_volume: Callable[[str], bool]) -> bool:
    """Change a container's spec as a pod VM wants it; tells whether anything was changed.

    Volumes that a storage driver gives to the machine are named to the forwarder, which waits for their mounts; a
    pod that asked for graphics processors gets all that its machine has.

    Args:
        spec: What is changed.
        is_direct_volume: Whether the volume that pods name by this path is one for the machine.
    """
    changed = False
    annotations = spec.Annotations
    targets = [path for path in annotations.get(TARGET_PATH, "").split(",") if path]
    for mount in spec.Mounts:
        if mount.source not in targets and is_csi(mount.source) and is_direct_volume(mount.source):
            targets.append(mount.source)
            changed = True
    if changed:
        annotations[TARGET_PATH] = ",".join(targets)
    if annotations.get(GPUS) and annotations.get(CDI) != CDI_DEVICES:
        annotations[CDI] = CDI_DEVICES
        changed = True
    return changed


def is_csi(source: str) -> bool:
    """Whether a mount's source is where a kubelet has a CSI driver publish a volume."""
    return _CSI in posixpath.normpath(source)


def disk_of(volume: direct.DirectVolume) -> str:
    """The disk that a direct-assigned volume is on; empty if it is on none."""
    return volume.metadata.get(_CLOUD_VOLUME) or ("" if volume.device in _NO_DISK else str(volume.device))


class Rewrite:
    """The hook of a splice: sees the calls in `HOOKED`.

    Args:
        direct_volumes: Where storage drivers describe volumes.
    """

    def __init__(self, direct_volumes: Path = direct.ROOT) -> None:
        self._direct_volumes = direct_volumes

    async def __call__(self, service: str, method: str, payload: bytes) -> bytes | None:
        """The request as it goes on; None leaves it as it is.

        Raises:
            StatusError: It is malformed, or asks for a disk that no machine here can have.
        """
        try:
            request = agent_pb2.CreateContainerRequest.FromString(payload)
        except DecodeError as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"{method}: the request cannot be decoded: {error}") from None
        changed = await off_loop(rewrite_spec, request.OCI, self._is_direct_volume)
        pulled = any(storage.driver == GUEST_PULL for storage in request.storages)
        logger.info(
            "container %s: %s, %s", request.container_id, "changed for a pod VM" if changed else "passed as it is",
            "its image is pulled there" if pulled else "no image is to be pulled there",
        )  # fmt: skip
        return request.SerializeToString() if changed else None

    def _is_direct_volume(self, source: str) -> bool:
        try:
            volume = direct.find(Path(source), self._direct_volumes)
        except StorageError as error:
            logger.debug("%s", error)
            volume = None
        if volume is not None and (disk := disk_of(volume)):
            name = posixpath.normpath(source).partition(_CSI)[2].partition("/")[0]
            raise StatusError(
                Code.FAILED_PRECONDITION,
                f"volume {name} is on the disk {disk}, and cloud-api-adaptor attaches no disks to pod VMs; give the "
                "pod a volume of another kind, or a runtime class whose machines run on its own node",
            )
        return os.path.isdir(direct.place(source, self._direct_volumes))  # noqa: PTH112 a name too long is none
