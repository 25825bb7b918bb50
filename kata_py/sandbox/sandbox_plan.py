"""Every decision about a sandbox, made from configuration and OCI spec before anything is done. No I/O.

Source of what its guest is told: kata `virtcontainers/kata_agent.go`, `pkg/oci/utils.go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.config.model import REMOTE, Configuration, RuntimeConfig
from kata_py.config.size import SandboxSize
from kata_py.hypervisor.api import Accelerator, AgentChannel, Boot, SharedDirectory, VmSpec
from kata_py.network.model import Model, RateLimits
from kata_py.oci.spec import Spec
from kata_py.sandbox import confinement, peer, pod, volumes
from kata_py.sandbox.agent import CALL_TIMEOUT
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.placement import CgroupPlan
from kata_py.sandbox.pod import Role
from kata_py.sandbox.size import Host, Sizing
from kata_py.storage import share
from kata_py.storage.share import Volume

LOG_PORT = 1025
DEBUG_CONSOLE_PORT = 1026
HOSTNAME_MAX = 64  # characters, as the kernel
REMOTE_PATIENCE = 120.0  # seconds that an adaptor may take to be started anew
REMOTE_TIMEOUT = 300.0  # seconds that the agent of a machine elsewhere may take for the sandbox

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
        guest_timeout: Seconds that it may take for that.
        shared: Whether the guest sees the host's files; else it gets copies.
        bind_mounts: Files and directories of the host that it sees besides its containers'.
        dial_timeout: Seconds until the agent must answer.
        patience: Seconds that a lost connection to it may take to come back.
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
    guest_timeout: float
    shared: bool
    bind_mounts: tuple[Volume, ...]
    dial_timeout: float
    patience: float
    create_timeout: float
    paths: HostPaths
    sizing: Sizing
    cgroups: CgroupPlan
    seccomp: bool = False


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
    shared = volumes.shares_files(configuration.hypervisor)
    resources = spec.get("linux", {}).get("resources", {})
    annotations = spec.get("annotations", {})
    elsewhere = hypervisor.name == REMOTE
    host = Host.unbounded() if elsewhere else host or Host.current()
    sizing = Sizing.of(configuration, host, SandboxSize.of(annotations))
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
            annotations=peer.request(configuration, annotations, sandbox_id) if elsewhere else {},
        ),
        network=None if elsewhere else _network(configuration, spec),
        policy=configuration.policy,
        guest=agent_pb2.CreateSandboxRequest(
            sandbox_id=sandbox_id,
            hostname=spec.get("hostname", "")[:HOSTNAME_MAX],
            dns=dns,
            guest_hook_path=str(hypervisor.guest_hook_path or ""),
            kernel_modules=() if elsewhere else _modules(configuration),
            storages=[
                *([_SHARE] if shared else ()),
                *([volumes.sandbox_shm(shm_size)] if role is Role.SANDBOX else ()),
            ],
        ),
        guest_timeout=REMOTE_TIMEOUT if elsewhere else CALL_TIMEOUT,
        shared=shared,
        bind_mounts=_bind_mounts(configuration.runtime),
        dial_timeout=configuration.agent.dial_timeout,
        patience=REMOTE_PATIENCE if elsewhere else 0.0,
        create_timeout=configuration.runtime.create_container_timeout,
        paths=paths,
        sizing=sizing,
        cgroups=CgroupPlan.of(configuration, spec, sandbox_id, paths.overhead),
        seccomp=not configuration.runtime.disable_guest_seccomp,
    )


def refuse_host_namespaces(spec: Spec, role: Role) -> None:
    """Refuse a sandbox that is to live in namespaces of the host: its processes run under another kernel.

    A manager of pods says so by leaving the namespace out, CRI-O also by an annotation; its other containers follow
    the sandbox.

    Raises:
        InvalidArgument: Names the field of the pod's spec.
    """
    if role is Role.CONTAINER:
        return
    namespaces = spec.get("linux", {}).get("namespaces", [])
    has = {namespace["type"] for namespace in namespaces} - pod.host_namespaces(spec.get("annotations", {}))
    for kind, field in _HOST_FIELDS.items():
        if kind not in has and (kind == "network" or role is Role.SANDBOX):
            raise InvalidArgument(
                f"{field} is not possible: the pod runs in a virtual machine, which has no {kind} namespace of the host"
            )
    if "user" in has:
        raise InvalidArgument(
            "hostUsers: false is not supported: the virtual machine itself keeps the pod's users apart"
        )


def resolv_conf(spec: Spec) -> Path | None:
    """The host's file that becomes the container's /etc/resolv.conf."""
    return _source_of(spec, "/etc/resolv.conf")


def shm(spec: Spec) -> Path | None:
    """The host's directory that would become the container's /dev/shm; in the guest its size alone counts."""
    return _source_of(spec, volumes.SHM)


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


def _agent_parameters(configuration: Configuration) -> list[str]:
    """What the agent is told by the kernel's line, where it differs from its own default.

    Source: kata `virtcontainers/kata_agent.go` (KataAgentKernelParams), `src/agent/src/config.rs`.
    """
    agent = configuration.agent
    parameters = []
    if agent.enable_debug:
        parameters.append("agent.log=debug")
    if agent.enable_tracing:
        parameters.append("agent.trace=true")
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
