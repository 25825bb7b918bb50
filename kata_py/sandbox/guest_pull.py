"""Root file systems of images that the guest pulls: what its agent is told, where nothing is mounted on the host.

Source: kata `virtcontainers/fs_share_linux.go` (forceGuestPull, handleVirtualVolume), `kata_agent.go`
(handleImageGuestPullBlockVolume), whose driver, options and places are kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kata_protos import agent_pb2
from kata_py.config.rules import POLICY, RUNTIME
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.pod import Role
from kata_py.storage.errors import MalformedVolume
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.virtual_volume import IMAGE_GUEST_PULL, PulledImage, pulled_image

PAUSE = "pause"  # what upstream calls the sandbox's image, which the guest has of its own

# The annotation that says which manager it is, and the one in which that manager names the image.
_CRIO = ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.ImageName")
_CONTAINERD = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.image-name")


def plan_pull(
    rootfs: Sequence[RootfsMount], annotations: Mapping[str, str], role: Role, container_id: str, *, forced: bool
) -> agent_pb2.Storage | None:
    """What the agent is told to pull; None if the container's root file system is made on the host.

    Args:
        rootfs: The mounts that the manager gave.
        annotations: Those of the container.
        role: What it is to its sandbox: the one that holds the pod together needs no registry.
        container_id: Its id.
        forced: Whether the guest pulls whatever the manager gave (`experimental_force_guest_pull`).

    Raises:
        InvalidArgument: No annotation names the image, or the snapshotter's description cannot be read.
        UnsupportedMount: The snapshotter describes another kind of volume.
    """
    try:
        image = PulledImage() if forced else pulled_image(rootfs)
    except MalformedVolume as error:
        raise InvalidArgument(str(error)) from error
    if image is None:
        return None
    told = {key: value for key, value in annotations.items() if key != POLICY}
    metadata = {"metadata": {**image.metadata, **told}}
    return agent_pb2.Storage(
        driver=IMAGE_GUEST_PULL,
        driver_options=[f"{IMAGE_GUEST_PULL}={json.dumps(metadata, sort_keys=True, separators=(',', ':'))}"],
        source=PAUSE if role is Role.SANDBOX else _reference(image, annotations, forced=forced),
        fstype="overlay",
        mount_point=f"/run/kata-containers/{container_id}/rootfs",
    )


def _reference(image: PulledImage, annotations: Mapping[str, str], *, forced: bool) -> str:
    """The annotation's word goes before the snapshotter's, as upstream has it."""
    manager, name = _CONTAINERD
    if manager not in annotations and _CRIO[0] in annotations:
        name = _CRIO[1]
    if reference := annotations.get(name) or image.source:
        return reference
    why = (
        f"{RUNTIME.removeprefix('io.katacontainers.config.')}experimental_force_guest_pull" if forced else "its rootfs"
    )
    raise InvalidArgument(
        f"annotation {name} is missing: {why} wants the image to be pulled in the guest, and nothing names it"
    )
