"""What becomes of each mount of a container's spec in a machine: decided from what its source is, without I/O.

Files and directories of the host are shared; memory is the guest's own; disks are plugged in. Source: kata
`virtcontainers/{container,mount,kata_agent}.go`, whose places in the guest are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from kata_protos import agent_pb2
from kata_py.oci.spec import Mount
from kata_py.sandbox.errors import InvalidArgument, Unimplemented
from kata_py.storage.share import Volume
from kata_py.storage.source import Kind, Source

SHM = "/dev/shm"
SHM_SIZE = 64 << 20  # bytes, where nobody says
GUEST_SHM = "/run/kata-containers/sandbox/shm"
GUEST_EPHEMERAL = "/run/kata-containers/sandbox/ephemeral"

_SHM_OPTIONS = ("nosuid", "noexec", "nodev", "mode=1777")
_EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"  # in the path of every emptyDir, kubelet `volumes/emptydir`


@dataclass(frozen=True, slots=True)
class Volumes:
    """What becomes of a container's mounts.

    Attributes:
        mounts: What the guest's spec says.
        shared: Files and directories of the host that it sees.
        storages: What the agent makes before the container.
    """

    mounts: tuple[Mount, ...] = ()
    shared: tuple[Volume, ...] = ()
    storages: tuple[agent_pb2.Storage, ...] = ()

    def __add__(self, other: Volumes) -> Volumes:
        return Volumes(self.mounts + other.mounts, self.shared + other.shared, self.storages + other.storages)


def plan_volumes(
    container_id: str, mounts: Sequence[Mount], sources: Mapping[Path, Source], *, pod_shm: bool
) -> Volumes:
    """Decide what becomes of a container's mounts, in their order.

    Args:
        container_id: Its id.
        mounts: Its spec's.
        sources: What the sources of `bind_sources` are; one that is not there is taken for a directory.
        pod_shm: Whether the sandbox has shared memory that all containers of the pod see.

    Raises:
        InvalidArgument: A source cannot be given to a machine.
    """
    volumes = Volumes()
    for mount in mounts:
        volumes += _volume(container_id, mount, sources, pod_shm)
    return volumes


def bind_sources(mounts: Sequence[Mount]) -> list[Path]:
    """The paths on the host whose nature decides what becomes of a mount."""
    return [Path(mount.get("source", "")) for mount in mounts if _is_the_hosts(mount) and mount["destination"] != SHM]


def sandbox_shm(size: int) -> agent_pb2.Storage:
    """The memory that a pod's containers share at /dev/shm, of so many bytes at most."""
    options = [*_SHM_OPTIONS, f"size={size}"]
    return agent_pb2.Storage(
        driver="ephemeral", source="shm", fstype="tmpfs", mount_point=GUEST_SHM, options=options
    )  # fmt: skip


def _volume(container_id: str, mount: Mount, sources: Mapping[Path, Source], pod_shm: bool) -> Volumes:
    destination, options = mount["destination"], mount.get("options", [])
    if not _is_the_hosts(mount):
        return Volumes((mount,))
    if destination == SHM and pod_shm:
        return Volumes((_bind(mount, GUEST_SHM),))
    if destination == SHM:
        # The host's memory cannot be shared with the guest's. One container needs no shm but its own.
        own: Mount = {"destination": SHM, "type": "tmpfs", "source": "shm"}
        own["options"] = [*_SHM_OPTIONS, f"size={SHM_SIZE}"]
        return Volumes((own,))
    path = Path(mount.get("source", ""))
    source = sources.get(path, Source(path, Kind.DIRECTORY))
    if source.kind is Kind.BLOCK_DEVICE:
        raise Unimplemented(f"mount of {path} at {destination}: block devices are not plugged in yet")
    if source.kind is Kind.OTHER:
        raise InvalidArgument(
            f"mount of {path} at {destination}: it is neither file, directory nor disk, and what answers there is on"
            " the host, which a virtual machine cannot reach"
        )
    if _EMPTY_DIR in f"{path}" and source.fstype in ("tmpfs", "hugetlbfs"):
        storage = _memory(source)
        return Volumes((_bind(mount, storage.mount_point),), storages=(storage,))
    volume = Volume.for_container(container_id, path, destination, options)
    if source.kind is Kind.FILE:
        volume = replace(volume, recursive=False)
    return Volumes((_bind(mount, volume.guest_path, options),), shared=(volume,))


def _bind(mount: Mount, source: str, options: Sequence[str] | None = None) -> Mount:
    """The mount as a bind of a place in the guest."""
    if options is None:
        options = ["rbind", "ro" if "ro" in mount.get("options", []) else "rw"]
    return {**mount, "type": "bind", "source": source, "options": list(options)}


def _memory(source: Source) -> agent_pb2.Storage:
    """An emptyDir in memory, the guest's own; the containers of the pod find it by its name, until the pod's end."""
    options = [f"size={source.size}"] if source.size else []
    if source.fstype == "hugetlbfs":
        options.append(f"pagesize={source.block_size}")
    else:
        options.append(f"mode={source.mode:o}")
    if source.group:
        options.append(f"fsgid={source.group}")
    return agent_pb2.Storage(
        driver="ephemeral",
        source=source.fstype,
        fstype=source.fstype,
        mount_point=f"{GUEST_EPHEMERAL}/{source.path.name}",
        options=options,
        shared=True,
    )


def _is_the_hosts(mount: Mount) -> bool:
    """Whether the mount shows something of the host; the guest's own is taken below /proc, /sys and /dev."""
    if mount.get("type") != "bind" and not {"bind", "rbind"} & set(mount.get("options", [])):
        return False
    destination, source = PurePosixPath(mount["destination"]), PurePosixPath(mount.get("source", ""))
    if destination.is_relative_to("/proc") or destination.is_relative_to("/sys"):
        return False
    return destination == PurePosixPath(SHM) or not source.is_relative_to("/dev")
