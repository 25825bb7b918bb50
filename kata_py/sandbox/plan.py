"""Every decision about a sandbox, made from configuration and OCI spec before anything is done. No I/O.

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
from kata_py.config.size import SandboxSize
from kata_py.hypervisor.api import Accelerator, AgentChannel, Boot, SharedDirectory, VfioDevice, VmSpec
from kata_py.network.model import Model, RateLimits
from kata_py.oci.spec import Linux, LinuxResources, Process, Spec
from kata_py.oci.wire import to_agent
from kata_py.sandbox import confinement, pod, volumes
from kata_py.sandbox.disks import DiskUse
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.hooks import HostHooks, host_hooks
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.placement import CgroupPlan
from kata_py.sandbox.pod import Role
from kata_py.sandbox.size import Host, Sizing
from kata_py.sandbox.stdio import StdioSpec
from kata_py.sandbox.vfio import Passthrough, plan_vfio
from kata_py.sandbox.volumes import EmptyDirs
from kata_py.storage import share
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import Volume
from kata_py.storage.source import Sources

LOG_PORT = 1025
DEBUG_CONSOLE_PORT = 1026
HOSTNAME_MAX = 64  # characters, as the kernel

# The guest has a network of its own for the whole pod, and its cgroups and clock are nobody else's.
_SANDBOX_NAMESPACES = frozenset({"network", "cgroup", "time"})
_SHORT_ID = 12  # characters, as managers show ids
_NOTHING = Sources()
_SHARE = agent_pb2.Storage(
    driver="virtio-fs", source=share.TAG, fstype="virtiofs", mount_point=f"{share.GUEST_ROOT}/"
)  # fmt: skip

# What a pod's spec calls the namespaces of the host that a machine cannot give its containers.
_HOST_FIELDS = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """How a pod's network is given to its guest.

    Attributes:
        namespace: The pod's network namespace, made by the manager.
        model: How its links are connected.
        vhost: Whether frames go through the host's kernel alone, where it can.
        limits: How fast they may go.
    """

    namespace: Path
    model: Model
    vhost: bool
    limits: RateLimits


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """A sandbox, fully decided.

    Attributes:
        id: Its id.
        vm: Its virtual machine.
        network: Its network; None if the manager has made none.
        policy: What the agent is told to let pass, in Rego; empty leaves it to the guest.
        guest: What the agent is told once it answers.
        shared: Whether the guest sees the host's files; else it gets copies.
        bind_mounts: Files and directories of the host that it sees besides its containers'.
        dial_timeout: Seconds until the agent must answer.
        create_timeout: Seconds the agent may take to create a container.
        paths: Where its files go.
        sizing: How its machine grows and shrinks.
        cgroups: Where its processes live on the host.
        seccomp: Whether containers keep their seccomp profiles, which the agent must be able to apply.
    """

    id: str
    vm: VmSpec
    network: NetworkPlan | None
    policy: str
    guest: agent_pb2.CreateSandboxRequest
    shared: bool
    bind_mounts: tuple[Volume, ...]
    dial_timeout: float
    create_timeout: float
    paths: HostPaths
    sizing: Sizing
    cgroups: CgroupPlan
    seccomp: bool = False


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container, fully decided.

    Attributes:
        id: Its id.
        bundle: Its bundle directory.
        stdio: Where its process's streams go.
        rootfs: The mounts that make its root file system, or the directory where it lies; None if it is among the
            disks.
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

    def stage(self, name: str) -> str:
        """The name in the timeline of a stage of its life; a container that came later is told by its id."""
        return f"{name} {self.id[:_SHORT_ID]}" if self.role is Role.CONTAINER else name


def plan_sandbox(
    configuration: Configuration,
    spec: Spec,
    *,
    sandbox_id: str,
    role: Role = Role.SINGLE,
    dns: Sequence[str] = (),
    shm_size: int = volumes.SHM_SIZE,
    host: Host | None = None,
    paths: HostPaths | None = None,
) -> SandboxPlan:
    """Decide a sandbox.

    Args:
        configuration: As the runtime class has it.
        spec: The spec of the sandbox's first container.
        sandbox_id: The sandbox's id, checked before.
        role: What the first container is to the sandbox.
        dns: Lines of the pod's resolv.conf.
        shm_size: Bytes of memory that the pod's containers share at /dev/shm at most.
        host: What the machine may use at most; None is this host.
        paths: Where the sandbox's files go.

    Raises:
        InvalidArgument: The spec contradicts itself, or asks for what a machine cannot give; names the field.
    """
    refuse_host_namespaces(spec, role)
    paths = paths or HostPaths()
    hypervisor = configuration.hypervisor
    shared = _shares(configuration)
    resources = spec.get("linux", {}).get("resources", {})
    sizing = Sizing.of(configuration, host or Host.current(), SandboxSize.of(spec.get("annotations", {})))
    cpus, memory = sizing.boot([resources], configuration)
    return SandboxPlan(
        id=sandbox_id,
        vm=VmSpec(
            sandbox_id=sandbox_id,
            directory=paths.machines / sandbox_id,
            boot=Boot(
                kernel=hypervisor.kernel,
                initramfs=hypervisor.initrd or hypervisor.initramfs,
                image=None if hypervisor.initrd else hypervisor.image,
                image_fstype=hypervisor.rootfs_type,
                parameters=(
                    *(("intel_iommu=on", "iommu=pt") if hypervisor.enable_iommu else ()),
                    *_agent_parameters(configuration),
                    *hypervisor.kernel_params.split(),
                ),
            ),
            cpus=cpus,
            memory=memory,
            devices=(SharedDirectory(share.TAG, share.directory(sandbox_id, paths.shares)),) if shared else (),
            agent_channel=AgentChannel(hypervisor.agent_channel),
            accelerator=Accelerator(hypervisor.accelerator),
            machine=hypervisor.machine_type,
            debug=hypervisor.enable_debug,
            agent_log=hypervisor.enable_debug,
            debug_console=configuration.agent.debug_console_enabled,
            network_namespace=confinement.network_namespace(spec),
            selinux_label=confinement.selinux_label(spec, hypervisor),
        ),
        network=_network(configuration, spec),
        policy=configuration.policy,
        guest=agent_pb2.CreateSandboxRequest(
            sandbox_id=sandbox_id,
            hostname=spec.get("hostname", "")[:HOSTNAME_MAX],
            dns=dns,
            guest_hook_path=str(hypervisor.guest_hook_path or ""),
            kernel_modules=_modules(configuration),
            storages=[
                *([_SHARE] if shared else ()),
                *([volumes.sandbox_shm(shm_size)] if role is Role.SANDBOX else ()),
            ],
        ),
        shared=shared,
        bind_mounts=_bind_mounts(configuration.runtime),
        dial_timeout=configuration.agent.dial_timeout,
        create_timeout=configuration.runtime.create_container_timeout,
        paths=paths,
        sizing=sizing,
        cgroups=CgroupPlan.of(configuration, spec, sandbox_id, paths.overhead),
        seccomp=not configuration.runtime.disable_guest_seccomp,
    )


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
        SpecError: A value of the spec does not fit the agent's protocol.
    """
    if "process" not in spec or not spec["process"]["args"]:
        raise InvalidArgument(f"{bundle}/config.json: process.args is missing: there is nothing to run")
    if not rootfs and "root" not in spec:
        raise InvalidArgument(f"{bundle}/config.json: root is missing, and the manager gave no rootfs")
    confinement.refuse_unsupported(spec)
    devices = confinement.guest_devices(spec, vfio=configuration.runtime.vfio_mode == "vfio")
    root_disk = None
    if not configuration.hypervisor.disable_block_device_use:
        root_disk = volumes.root_disk(container_id, rootfs, sources)
    if root_disk is None and not _shares(configuration):
        raise InvalidArgument(
            'shared_fs is "none": the root file system must be a disk of its own, as a snapshotter of block devices'
            " makes it, and disable_block_device_use must be false"
        )
    planned = volumes.plan_volumes(
        container_id,
        spec.get("mounts", []),
        sources,
        pod_shm=role is not Role.SINGLE,
        empty_dirs=_empty_dirs(configuration.runtime),
        sandbox_id=sandbox_id or container_id,
        shared=_shares(configuration),
    )
    named = volumes.plan_disks(devices, spec.get("linux", {}).get("resources", {}).get("devices", []), sources)
    linux, shares_pids = _linux(
        {**spec.get("linux", {}), "devices": [*devices, *planned.nodes]},
        keep_seccomp=not configuration.runtime.disable_guest_seccomp,
    )
    root = share.guest_rootfs(container_id)
    if root_disk is not None and root_disk.storage is not None:
        root = root_disk.storage.mount_point
    guest: Spec = {
        "ociVersion": spec["ociVersion"],
        "process": guest_process(spec["process"], terminal=stdio.terminal),
        "root": {"path": root, "readonly": spec.get("root", {}).get("readonly", False)},
        "hostname": spec.get("hostname", ""),
        "mounts": list(planned.mounts),
        "annotations": {key: value for key, value in spec.get("annotations", {}).items() if key != POLICY},
        "linux": linux,
    }
    return ContainerPlan(
        id=container_id,
        bundle=bundle,
        stdio=stdio,
        rootfs=None if root_disk is not None else rootfs or bundle / spec["root"]["path"],
        volumes=planned.shared,
        guest=agent_pb2.CreateContainerRequest(
            container_id=container_id,
            exec_id=container_id,
            storages=planned.storages,
            OCI=to_agent(guest),
            sandbox_pidns=shares_pids,
        ),
        disks=(*([root_disk] if root_disk is not None else ()), *planned.disks, *named),
        terminal_size=terminal_size(spec["process"]),
        role=role,
        resources=spec.get("linux", {}).get("resources", {}),
        oom_file=pod.managed_by_crio(spec.get("annotations", {})),
        hooks=host_hooks(spec, container_id, bundle),
        vfio=plan_vfio(configuration, found, role),
    )


def refuse_host_namespaces(spec: Spec, role: Role) -> None:
    """Refuse a sandbox that is to live in namespaces of the host: its processes run under another kernel.

    A manager of pods says so by leaving the namespace out; its other containers follow the sandbox.

    Raises:
        InvalidArgument: Names the field of the pod's spec.
    """
    if role is Role.CONTAINER:
        return
    namespaces = spec.get("linux", {}).get("namespaces", [])
    has = {namespace["type"] for namespace in namespaces}
    for kind, field in _HOST_FIELDS.items():
        if kind not in has and (kind == "network" or role is Role.SANDBOX):
            raise InvalidArgument(
                f"{field} is not possible: the pod runs in a virtual machine, which has no {kind} namespace of the host"
            )
    if "user" in has:
        raise InvalidArgument(
            "hostUsers: false is not supported: the virtual machine itself keeps the pod's users apart"
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


def resolv_conf(spec: Spec) -> Path | None:
    """The host's file that becomes the container's /etc/resolv.conf."""
    return _source_of(spec, "/etc/resolv.conf")


def shm(spec: Spec) -> Path | None:
    """The host's directory that would become the container's /dev/shm; in the guest its size alone counts."""
    return _source_of(spec, volumes.SHM)


def _shares(configuration: Configuration) -> bool:
    """Whether the guest sees files of the host."""
    return configuration.hypervisor.shared_fs != "none"


def _empty_dirs(runtime: RuntimeConfig) -> EmptyDirs:
    if runtime.emptydir_mode == "block-plain":
        return EmptyDirs.DISK
    return EmptyDirs.SHARED if runtime.disable_guest_empty_dir else EmptyDirs.LOCAL


def _bind_mounts(runtime: RuntimeConfig) -> tuple[Volume, ...]:
    """The host's files that the guest sees besides its containers': read-only, unless `:rw` follows the path."""
    mounts: dict[str, Volume] = {}
    for text in runtime.sandbox_bind_mounts:
        path, _, mode = text.rpartition(":") if text.endswith((":ro", ":rw")) else (text, "", "ro")
        volume = Volume.for_sandbox(Path(path), read_only=mode == "ro")
        if volume.name in mounts:
            raise InvalidArgument(f"sandbox_bind_mounts: two of the paths end in {volume.source.name}")
        mounts[volume.name] = volume
    return tuple(mounts.values())


def _source_of(spec: Spec, destination: str) -> Path | None:
    for mount in spec.get("mounts", []):
        if mount["destination"] == destination and mount.get("source", "").startswith("/"):
            return Path(mount["source"])
    return None


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


def _agent_parameters(configuration: Configuration) -> list[str]:
    """What the agent is told by the kernel's line, where it differs from its own default.

    Source: kata `virtcontainers/kata_agent.go` (KataAgentKernelParams), `src/agent/src/config.rs`.
    """
    agent = configuration.agent
    parameters = []
    if agent.enable_debug:
        parameters.append("agent.log=debug")
    if configuration.hypervisor.enable_debug:
        parameters.append(f"agent.log_vport={LOG_PORT}")
    if agent.debug_console_enabled:
        parameters += ["agent.debug_console", f"agent.debug_console_vport={DEBUG_CONSOLE_PORT}"]
    if agent.container_pipe_size:
        parameters.append(f"agent.container_pipe_size={agent.container_pipe_size}")
    if agent.cdh_api_timeout:
        parameters.append(f"agent.cdh_api_timeout={agent.cdh_api_timeout}")
    if agent.launch_process_timeout:
        parameters.append(f"agent.launch_process_timeout={agent.launch_process_timeout}")
    return parameters


def _modules(configuration: Configuration) -> list[agent_pb2.KernelModule]:
    """The modules that the agent loads: those asked for, and the drivers of devices that not every machine has."""
    hypervisor = configuration.hypervisor
    modules = [
        agent_pb2.KernelModule(name=name, parameters=parameters)
        for name, *parameters in map(str.split, configuration.agent.kernel_modules)
    ]
    if hypervisor.entropy_source:
        modules.append(agent_pb2.KernelModule(name="virtio_rng"))
    if hypervisor.enable_virtio_mem:
        modules.append(agent_pb2.KernelModule(name="virtio_mem"))
    if hypervisor.reclaim_guest_freed_memory:
        modules.append(agent_pb2.KernelModule(name="virtio_balloon"))
    return modules


def _network(configuration: Configuration, spec: Spec) -> NetworkPlan | None:
    hypervisor = configuration.hypervisor
    for namespace in spec.get("linux", {}).get("namespaces", []):
        if namespace["type"] == "network" and namespace.get("path"):
            return NetworkPlan(
                Path(namespace["path"]),
                Model.named(configuration.runtime.internetworking_model),
                vhost=not hypervisor.disable_vhost_net,
                limits=RateLimits(hypervisor.rx_rate_limiter_max_rate, hypervisor.tx_rate_limiter_max_rate),
            )
    return None
