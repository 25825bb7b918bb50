"""Every decision about a container, made from configuration and OCI spec before anything is done.

Source of what is left out of a guest's spec and what is shared: kata `virtcontainers/kata_agent.go`,
`container.go`, `pkg/oci/utils.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kata_protos import agent_pb2
from kata_py.config.model import Configuration, RuntimeConfig
from kata_py.config.rules import POLICY
from kata_py.hypervisor.api import VfioDevice
from kata_py.oci.spec import Linux, LinuxResources, Process, Spec
from kata_py.oci.wire import to_agent
from kata_py.sandbox import confinement, pod, volumes
from kata_py.sandbox.disks import DiskUse
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.guest_pull import plan_pull
from kata_py.sandbox.hooks import HostHooks, host_hooks
from kata_py.sandbox.pod import Role
from kata_py.sandbox.stdio import StdioSpec
from kata_py.sandbox.vfio import Passthrough, plan_vfio
from kata_py.sandbox.volumes import EmptyDirs
from kata_py.storage import share
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import Volume
from kata_py.storage.source import Sources

# The guest has a network of its own for the whole pod, and its cgroups and clock are nobody else's.
_SANDBOX_NAMESPACES = frozenset({"network", "cgroup", "time"})
_SHORT_ID = 12  # characters, as managers show ids
_NOTHING = Sources()


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container, fully decided.

    Attributes:
        id: Its id.
        bundle: Its bundle directory.
        stdio: Where its process's streams go.
        rootfs: The mounts that make its root file system, or the directory where it lies; None if it is among the
            disks, or the guest pulls it.
        volumes: What else of the host's files it sees.
        guest: What the agent is told.
        resources: What it may use, as its manager says.
        disks: What is plugged into the machine for it.
        terminal_size: Rows and columns of its terminal at the start, if the spec says so.
        role: What it is to its sandbox.
        oom_file: Whether its manager looks for a file when the kernel has killed in it for want of memory.
        hooks: What runs on the host before its creation, after its start and after its end.
        vfio: The devices of the host that it is given.
    """

    id: str
    bundle: Path
    stdio: StdioSpec
    rootfs: Sequence[RootfsMount] | Path | None
    volumes: tuple[Volume, ...]
    guest: agent_pb2.CreateContainerRequest
    resources: LinuxResources
    disks: tuple[DiskUse, ...] = ()
    terminal_size: tuple[int, int] | None = None
    role: Role = Role.SINGLE
    oom_file: bool = False
    hooks: HostHooks | None = None
    vfio: tuple[Passthrough, ...] = ()

    @property
    def host_devices(self) -> tuple[Path, ...]:
        """Where what it is given of the host's devices lies; some of these paths may be files."""
        mounts = self.rootfs if isinstance(self.rootfs, Sequence) else ()
        return (
            *(use.device.path for use in self.disks),
            *(Path(mount.source) for mount in mounts if mount.source.startswith("/dev/")),
            *(Path(each.node) for each in self.vfio),
        )

    def stage(self, name: str) -> str:
        """The name in the timeline of a stage of its life; a container that came later is told by its id."""
        return f"{name} {self.id[:_SHORT_ID]}" if self.role is Role.CONTAINER else name


def plan_container(
    configuration: Configuration,
    spec: Spec,
    *,
    container_id: str,
    bundle: Path,
    stdio: StdioSpec,
    rootfs: Sequence[RootfsMount] = (),
    role: Role = Role.SINGLE,
    sandbox_id: str = "",
    sources: Sources = _NOTHING,
    found: Mapping[Path, tuple[VfioDevice, ...]] = MappingProxyType({}),
) -> ContainerPlan:
    """Decide a container.

    Args:
        configuration: As the runtime class has it.
        spec: The container's spec.
        container_id: Its id, checked before.
        bundle: Its bundle directory.
        stdio: Where its process's streams go.
        rootfs: The mounts that make its root file system; none when the manager has mounted it at the spec's root.
        role: What it is to its sandbox.
        sandbox_id: The sandbox's id, if it is another one.
        sources: What the host has of what its spec names (`look_up`).
        found: The devices behind its nodes of VFIO (`vfio.nodes`).

    Raises:
        InvalidArgument: The spec has no process, or no root, or asks for what a machine cannot give.
        UnsupportedMount: The root file system is of a kind that only other runtimes know.
        SpecError: A value of the spec does not fit the agent's protocol.
    """
    if "process" not in spec or not spec["process"]["args"]:
        raise InvalidArgument(f"{bundle}/config.json: process.args is missing: there is nothing to run")
    annotations = spec.get("annotations", {})
    pull = plan_pull(
        rootfs, annotations, role, container_id, forced=configuration.runtime.experimental_force_guest_pull
    )
    if pull is None and not rootfs and "root" not in spec:
        raise InvalidArgument(f"{bundle}/config.json: root is missing, and the manager gave no rootfs")
    confinement.refuse_unsupported(spec)
    devices = confinement.guest_devices(spec, vfio=configuration.runtime.vfio_mode == "vfio")
    root_disk = None
    if pull is None and not configuration.hypervisor.disable_block_device_use:
        root_disk = volumes.root_disk(container_id, rootfs, sources)
    if pull is None and root_disk is None and not volumes.shares_files(configuration.hypervisor):
        raise InvalidArgument(
            'shared_fs is "none": the root file system must be a disk of its own, as a snapshotter of block devices'
            " makes it, and disable_block_device_use must be false; or the guest pulls the image, by a snapshotter for"
            " that or with experimental_force_guest_pull"
        )
    planned = volumes.plan_volumes(
        container_id,
        spec.get("mounts", []),
        sources,
        pod_shm=role is not Role.SINGLE,
        empty_dirs=_empty_dirs(configuration.runtime),
        sandbox_id=sandbox_id or container_id,
        shared=volumes.shares_files(configuration.hypervisor),
    )
    named = volumes.plan_disks(devices, spec.get("linux", {}).get("resources", {}).get("devices", []), sources)
    linux, shares_pids = _linux(
        {**spec.get("linux", {}), "devices": [*devices, *planned.nodes]},
        keep_seccomp=not configuration.runtime.disable_guest_seccomp,
    )
    root = share.guest_rootfs(container_id)
    if root_disk is not None and root_disk.storage is not None:
        root = root_disk.storage.mount_point
    if pull is not None:
        root = pull.mount_point
    guest: Spec = {
        "ociVersion": spec["ociVersion"],
        "process": guest_process(spec["process"], terminal=stdio.terminal),
        "root": {"path": root, "readonly": spec.get("root", {}).get("readonly", False)},
        "hostname": spec.get("hostname", ""),
        "mounts": list(planned.mounts),
        "annotations": {key: value for key, value in annotations.items() if key != POLICY},
        "linux": linux,
    }
    return ContainerPlan(
        id=container_id,
        bundle=bundle,
        stdio=stdio,
        rootfs=None if root_disk is not None or pull is not None else rootfs or bundle / spec["root"]["path"],
        volumes=planned.shared,
        guest=agent_pb2.CreateContainerRequest(
            container_id=container_id,
            exec_id=container_id,
            storages=[*([pull] if pull is not None else ()), *planned.storages],
            OCI=to_agent(guest),
            sandbox_pidns=shares_pids,
        ),
        disks=(*([root_disk] if root_disk is not None else ()), *planned.disks, *named),
        terminal_size=terminal_size(spec["process"]),
        role=role,
        resources=spec.get("linux", {}).get("resources", {}),
        oom_file=pod.managed_by_crio(annotations),
        hooks=host_hooks(spec, container_id, bundle),
        vfio=plan_vfio(configuration, found, role),
    )


def guest_process(process: Process, *, terminal: bool) -> Process:
    """A process as the guest runs it: security labels belong to the host's kernel."""
    guest: Process = {**process, "terminal": terminal}
    guest.pop("apparmorProfile", None)
    guest.pop("selinuxLabel", None)
    return guest


def terminal_size(process: Process) -> tuple[int, int] | None:
    """Rows and columns that a process's terminal has at the start."""
    size = process.get("consoleSize")
    return (size["height"], size["width"]) if size else None


def guest_resources(resources: LinuxResources) -> LinuxResources:
    """Resources as the guest can give them: processors, devices and disks are numbered differently there."""
    guest: LinuxResources = {}
    if "memory" in resources:
        guest["memory"] = resources["memory"]
    if "cpu" in resources:
        guest["cpu"] = {**resources["cpu"]}
        guest["cpu"].pop("cpus", None)
        guest["cpu"].pop("mems", None)
    if "hugepageLimits" in resources:
        guest["hugepageLimits"] = resources["hugepageLimits"]
    return guest


def look_up(spec: Spec, rootfs: Sequence[RootfsMount] = ()) -> Sources:
    """Look at what a container's spec names of the host. The one function here that does I/O; it blocks.

    Args:
        spec: The container's spec.
        rootfs: The mounts that make its root file system.

    Raises:
        StorageError: A storage driver's description of a volume cannot be used.
    """
    devices = spec.get("linux", {}).get("devices", [])
    paths = volumes.bind_sources(spec.get("mounts", []))
    paths += [Path(mount.source) for mount in rootfs if mount.source.startswith("/dev/")]
    return Sources.find(paths, volumes.disk_numbers(devices))


def _empty_dirs(runtime: RuntimeConfig) -> EmptyDirs:
    if runtime.emptydir_mode == "block-plain":
        return EmptyDirs.DISK
    return EmptyDirs.SHARED if runtime.disable_guest_empty_dir else EmptyDirs.LOCAL


def _linux(linux: Linux, *, keep_seccomp: bool) -> tuple[Linux, bool]:
    guest: Linux = {**linux}
    if not keep_seccomp:
        guest.pop("seccomp", None)
    guest.pop("mountLabel", None)
    guest["resources"] = guest_resources(linux.get("resources", {}))
    guest["namespaces"] = []
    shares_pids = False
    for namespace in linux.get("namespaces", []):
        joined = bool(namespace.get("path"))
        if namespace["type"] == "pid" and joined:
            shares_pids = True
        elif namespace["type"] not in _SANDBOX_NAMESPACES:
            guest["namespaces"].append({"type": namespace["type"]})
    return guest, shares_pids
