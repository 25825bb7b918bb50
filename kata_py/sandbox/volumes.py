"""What becomes of each mount of a container's spec in a machine: decided from what its source is, without I/O.

Files and directories of the host are shared; memory is the guest's own; disks are plugged in. Source: kata
`virtcontainers/{container,mount,kata_agent}.go`, whose places in the guest are kept.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from kata_protos import agent_pb2, agent_types_pb2
from kata_py.config.hypervisor import ShareConfig
from kata_py.hypervisor.api import BlockDevice
from kata_py.oci.spec import LinuxDevice, LinuxDeviceCgroup, Mount
from kata_py.sandbox.disks import DiskUse
from kata_py.sandbox.errors import InvalidArgument
from kata_py.storage.direct import DirectVolume
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import GUEST_ROOT, PROPAGATION, Volume, guest_rootfs
from kata_py.storage.source import Kind, Source, Sources

SHM = "/dev/shm"
SHM_SIZE = 64 << 20  # bytes, where nobody says
GUEST_SHM = "/run/kata-containers/sandbox/shm"
GUEST_EPHEMERAL = "/run/kata-containers/sandbox/ephemeral"
GUEST_STORAGE = "/run/kata-containers/sandbox/storage"
GUEST_PROPAGATING = "/run/kata-containers/sandbox/propagating"

EMPTY_DIR_IMAGE = "disk.img"

_SHM_OPTIONS = ("nosuid", "noexec", "nodev", "mode=1777")
_SEEN = "shared"  # what a container mounts below is seen by the others, if they want that
_SERIAL = 16  # characters of a disk's id, which a guest sees at most 20 of
_REMOVABLE = (2, 11)  # major numbers of floppy disks and CD-ROMs, which are the host's own
_GROUP_POLICIES = {"Always": agent_types_pb2.Always, "OnRootMismatch": agent_types_pb2.OnRootMismatch}
_EMPTY_DIR = "kubernetes.io~empty-dir"  # the directory of every emptyDir, kubelet `volume/emptydir`
_MEMORY = ("tmpfs", "hugetlbfs")


class EmptyDirs(enum.Enum):
    """What becomes of an emptyDir that is not in memory."""

    SHARED = "shared"  # the host's directory is seen
    LOCAL = "local"  # a directory of the sandbox's root file system
    DISK = "disk"  # an image file in the host's directory, in which the guest makes a file system


@dataclass(frozen=True, slots=True)
class Volumes:
    """What becomes of a container's mounts.

    Attributes:
        mounts: What the guest's spec says.
        shared: Files and directories of the host that it sees.
        storages: What the agent makes before the container.
        disks: What is plugged into the machine for it.
        nodes: Device nodes that stand in the place of mounts.
    """

    mounts: tuple[Mount, ...] = ()
    shared: tuple[Volume, ...] = ()
    storages: tuple[agent_pb2.Storage, ...] = ()
    disks: tuple[DiskUse, ...] = ()
    nodes: tuple[LinuxDevice, ...] = ()

    def __add__(self, other: Volumes) -> Volumes:
        return Volumes(
            self.mounts + other.mounts,
            self.shared + other.shared,
            self.storages + other.storages,
            self.disks + other.disks,
            self.nodes + other.nodes,
        )


def shares_files(config: ShareConfig) -> bool:
    """Whether the guest sees files of the host; else it gets copies."""
    return config.shared_fs != "none"


def plan_volumes(
    container_id: str,
    mounts: Sequence[Mount],
    sources: Sources,
    *,
    pod_shm: bool,
    empty_dirs: EmptyDirs = EmptyDirs.SHARED,
    sandbox_id: str = "",
    shared: bool = True,
) -> Volumes:
    """Decide what becomes of a container's mounts, in their order.

    Args:
        container_id: Its id.
        mounts: Its spec's.
        sources: What the paths of `bind_sources` are.
        pod_shm: Whether the sandbox has shared memory that all containers of the pod see.
        empty_dirs: What becomes of each emptyDir that is not in memory.
        sandbox_id: The sandbox's id; it counts where those are the guest's.
        shared: Whether the guest sees the host's files themselves, and not copies.

    Raises:
        InvalidArgument: A source cannot be given to a machine.
    """
    volumes = Volumes()
    for mount in mounts:
        path = Path(mount.get("source", ""))
        if empty_dirs is not EmptyDirs.SHARED and _is_the_hosts(mount) and _is_empty_dir(sources.at(path)):
            volumes += _empty_dir(mount, sources.at(path), empty_dirs, sandbox_id)
        else:
            volumes += _volume(container_id, mount, sources, pod_shm, shared)
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


def _volume(container_id: str, mount: Mount, sources: Sources, pod_shm: bool, shared: bool) -> Volumes:
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
    source = sources.at(path)
    if _is_the_guests(source):
        return Volumes((mount,))
    if source.direct is not None:
        return _direct(mount, source, source.direct)
    if source.kind is Kind.BLOCK_DEVICE:
        disk = disk_of(path, read_only=source.read_only or "ro" in options)
        node: LinuxDevice = {"path": destination, "type": "b", "major": 0, "minor": 0}  # the agent knows its numbers
        return Volumes(disks=(DiskUse(disk, node=destination),), nodes=(node,))
    if source.kind is Kind.OTHER:
        raise InvalidArgument(
            f"mount of {path} at {destination}: it is neither file, directory nor disk, and what answers there is on"
            " the host, which a virtual machine cannot reach"
        )
    if _is_empty_dir(source, _MEMORY):
        storage = _memory(source)
        return Volumes((_bind(mount, storage.mount_point),), storages=(storage,))
    if shared and _propagates(mount, source):
        return _propagating(mount, path)
    volume = Volume.for_container(container_id, path, destination, options)
    if source.kind is Kind.FILE:
        volume = replace(volume, recursive=False)
    return Volumes((_bind(mount, volume.guest_path, options),), shared=(volume,))


def _propagates(mount: Mount, source: Source) -> bool:
    """Whether containers of the pod may see each other's mounts in a directory of the host.

    What the machine may not write it gets as its own, read-only by the host, which is worth more.
    """
    options = set(mount.get("options", []))
    return source.kind is Kind.DIRECTORY and bool(options & PROPAGATION) and not options & {"ro", "rro"}


def _propagating(mount: Mount, path: Path) -> Volumes:
    """A directory of the host that is one mount in the guest for all containers, so that mounts in it go round."""
    volume = Volume.for_pod(path, mount.get("options", []))
    place = f"{GUEST_PROPAGATING}/{volume.name}"
    storage = agent_pb2.Storage(
        driver="bind", source=volume.guest_path, fstype="bind", mount_point=place, options=["rbind", _SEEN], shared=True
    )
    return Volumes((_bind(mount, place),), shared=(volume,), storages=(storage,))


def root_disk(container_id: str, rootfs: Sequence[RootfsMount], sources: Sources) -> DiskUse | None:
    """The disk with a container's root file system, if that is a disk and nothing else.

    Source: kata `virtcontainers/container.go` (hotplugDrive), `kata_agent.go`, whose place in the guest is kept.

    Args:
        container_id: Its id.
        rootfs: The mounts that make its root file system.
        sources: What their sources are.
    """
    if len(rootfs) != 1 or sources.at(Path(rootfs[0].source)).kind is not Kind.BLOCK_DEVICE:
        return None
    mount, source = rootfs[0], sources.at(Path(rootfs[0].source))
    options = [option for option in mount.options if option not in ("rw", "nouuid")]
    if mount.type == "xfs":
        options.append("nouuid")
    disk = disk_of(source.path, read_only=source.read_only or "ro" in options)
    storage = agent_pb2.Storage(fstype=mount.type, options=options, mount_point=f"{GUEST_ROOT}/{container_id}")
    return DiskUse(disk, storage=storage)


def plan_disks(
    devices: Sequence[LinuxDevice], rules: Sequence[LinuxDeviceCgroup], sources: Sources
) -> tuple[DiskUse, ...]:
    """The disks that a container's spec names as devices (`volumeMode: Block`).

    Args:
        devices: The spec's device nodes.
        rules: Its device rules: a disk that may not be written is plugged in read-only.
        sources: What the block devices of `disk_numbers` are.

    Raises:
        InvalidArgument: The host has no such disk.
    """
    uses = []
    for device in devices:
        number = _number(device)
        if number is None:
            continue
        if number not in sources.disks:
            raise InvalidArgument(f"device {device['path']}: the host has no block device {number[0]}:{number[1]}")
        access = [rule.get("access", "") for rule in rules if (rule.get("major"), rule.get("minor")) == number]
        read_only = bool(access) and not any("w" in each for each in access)
        uses.append(DiskUse(disk_of(sources.disks[number], read_only=read_only), node=device["path"]))
    return tuple(uses)


def disk_numbers(devices: Sequence[LinuxDevice]) -> list[tuple[int, int]]:
    """The numbers of the disks that a container's spec names as devices."""
    return [number for device in devices if (number := _number(device))]


def _number(device: LinuxDevice) -> tuple[int, int] | None:
    """The number of a disk; None of what is none."""
    number = device.get("major", 0), device.get("minor", 0)
    return number if device["type"] == "b" and number[0] not in _REMOVABLE else None


def disk_of(path: Path, *, read_only: bool = False) -> BlockDevice:
    """The disk with that content; one path is one disk, whoever uses it."""
    return BlockDevice(hashlib.sha256(bytes(path)).hexdigest()[:_SERIAL], path, read_only)


def _direct(mount: Mount, source: Source, volume: DirectVolume) -> Volumes:
    """A disk that the guest mounts itself. Source: kata `docs/design/direct-blk-device-assignment.md`."""
    options = [*volume.options]
    read_only = source.read_only or "ro" in options  # else another container of the pod may write
    if read_only and "ro" not in options:
        options.append("ro")
    if volume.fstype == "xfs":
        options.append("nouuid")
    name = base64.urlsafe_b64encode(bytes(volume.device)).decode()
    storage = agent_pb2.Storage(fstype=volume.fstype, options=options, mount_point=f"{GUEST_STORAGE}/{name}")
    if (group := volume.metadata.get("fsGroup")) and not read_only:
        policy = volume.metadata.get("fsGroupChangePolicy") or "Always"
        if not group.isdecimal() or policy not in _GROUP_POLICIES:
            raise InvalidArgument(f"direct-assigned volume {source.path}: fsGroup {group} with {policy} is not known")
        storage.fs_group.group_id = int(group)
        storage.fs_group.group_change_policy = _GROUP_POLICIES[policy]
    use = DiskUse(disk_of(volume.device, read_only=read_only), storage=storage, direct=source.path)
    return Volumes((_bind(mount, storage.mount_point),), disks=(use,))


def _bind(mount: Mount, source: str, options: Sequence[str] | None = None) -> Mount:
    """The mount as a bind of a place in the guest."""
    if options is None:
        told = mount.get("options", [])
        read_only = next((option for option in ("rro", "ro") if option in told), "rw")
        options = ["rbind", read_only, *(option for option in told if option in PROPAGATION)]
    return {**mount, "type": "bind", "source": source, "options": list(options)}


def _is_empty_dir(source: Source, fstypes: Collection[str] = ()) -> bool:
    """Whether it is an emptyDir of the kubelet's, wherever that has its files: in memory by these types, or on disk."""
    if source.kind is not Kind.DIRECTORY or source.path.parent.name != _EMPTY_DIR or source.direct is not None:
        return False
    return source.fstype in fstypes if fstypes else source.fstype not in _MEMORY


def _empty_dir(mount: Mount, source: Source, kind: EmptyDirs, sandbox_id: str) -> Volumes:
    """An emptyDir on the guest's own disk. Source: kata `virtcontainers/kata_agent.go` (handleLocalStorage)."""
    name = source.path.name
    if kind is EmptyDirs.LOCAL:
        place = f"{guest_rootfs(sandbox_id)}/local/{name}"
        options = ["mode=0777", *([f"fsgid={source.group}"] if source.group else ())]
        local = agent_pb2.Storage(driver="local", source="local", fstype="local", mount_point=place, options=options)
        return Volumes((_bind(mount, place),), storages=(local,))
    image = source.path / EMPTY_DIR_IMAGE
    storage = agent_pb2.Storage(
        fstype="ext4",
        options=["discard", _SEEN],
        driver_options=["create_filesystem"],
        mount_point=f"{GUEST_STORAGE}/{base64.urlsafe_b64encode(bytes(image)).decode()}",
    )
    if source.group:
        storage.fs_group.group_id = source.group
    return Volumes((_bind(mount, storage.mount_point),), disks=(DiskUse(disk_of(image), storage=storage, made=True),))


def _memory(source: Source) -> agent_pb2.Storage:
    """An emptyDir in memory, the guest's own; the containers of the pod find it by its name, until the pod's end."""
    options = [f"size={source.size}"] if source.size else []
    if source.fstype == "hugetlbfs":
        options.append(f"pagesize={source.block_size}")
    else:
        options += [f"mode={source.mode:o}", _SEEN]
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
    """Whether the mount may show something of the host; the guest's own is taken below /proc and /sys."""
    if mount.get("type") != "bind" and not {"bind", "rbind"} & set(mount.get("options", [])):
        return False
    destination = PurePosixPath(mount["destination"])
    return not destination.is_relative_to("/proc") and not destination.is_relative_to("/sys")


def _is_the_guests(source: Source) -> bool:
    """Whether a device is meant that the guest has itself; a disk of the host's is none, nor is a file."""
    return source.path.is_relative_to("/dev") and source.kind not in (Kind.BLOCK_DEVICE, Kind.FILE)
