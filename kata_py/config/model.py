"""The configuration as frozen values, one class per table of `configuration.toml`.

A field is the key of that name; its type says what the file may hold, its default is what counts when the key is
missing. Keys and meanings are upstream's (src/runtime/config/configuration-qemu.toml.in); the keys marked *ours*
are not known there. Whether a key is honoured already is told in `kata_py.config.upstream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from kata_py.config.hypervisor import HypervisorConfig
from kata_py.config.values import BindMounts, Modules, Range, Seconds, SecondsOrUnset

__all__ = ["REMOTE", "AgentConfig", "Asset", "Configuration", "HypervisorConfig", "RuntimeConfig", "Source"]

REMOTE = "remote"  # the hypervisor whose machines an adaptor makes elsewhere


# What the runtime class names: a file (ConfigPath), the text itself (ConfigBody), or nothing.
Source = Path | bytes | None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`[agent.kata]`: the agent in the guest."""

    # How long the agent may take to answer after the machine was started: twice what a guest without KVM needs.
    dial_timeout: Seconds = 45

    # An agent that talks; and one that gives a shell to whoever reaches its port, as `kata-ctl exec` does.
    enable_debug: bool = False
    debug_console_enabled: bool = False

    # Spans of what the agent does, in the traces of the shim.
    enable_tracing: bool = False

    # Kernel modules that the agent loads, each a name with its parameters.
    kernel_modules: Modules = ()

    # How long the agent waits for the guest's confidential data hub, and for its own helpers to start. 0 leaves it
    # to the agent.
    cdh_api_timeout: SecondsOrUnset = 0
    launch_process_timeout: SecondsOrUnset = 0

    # Bytes that the pipe of a container's output holds; 0 is the kernel's choice.
    container_pipe_size: Annotated[int, Range(0, (1 << 32) - 1)] = 0


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """`[runtime]`: the shim."""

    # How long the agent may take to create one container.
    create_container_timeout: Seconds = 60

    # Leave the seccomp profile of the container out: the machine's border stands in its place.
    disable_guest_seccomp: bool = True

    # The pod's network: how its interfaces reach the machine; whether the hypervisor stays in the host's; and where
    # files stand that describe devices given to the machine directly.
    internetworking_model: Literal["tcfilter", "macvtap", "none", "default"] = "tcfilter"
    disable_new_netns: bool = False
    dan_conf: Path = Path("/run/kata-containers/dans")

    # The pod's cgroup: whether all processes are in it; whether the machine has its final size from the start; and
    # whether each vCPU gets a processor of its own.
    sandbox_cgroup_only: bool = False
    static_sandbox_resource_mgmt: bool = False
    enable_vcpus_pinning: bool = False

    # Volumes: host files that all containers see read-only; whether an emptyDir stays on the host, and how it is
    # kept; and where the kubelet has them.
    sandbox_bind_mounts: BindMounts = ()
    disable_guest_empty_dir: bool = True
    emptydir_mode: Literal["shared-fs", "block-encrypted", "block-plain"] = "shared-fs"
    kubelet_root_dir: Path = Path("/var/lib/kubelet")

    # Whether the guest pulls every container's image itself, whatever root file system the manager gives.
    experimental_force_guest_pull: bool = False

    # Whether the guest's kernel drives a device of the host, or hands it on to the container.
    vfio_mode: Literal["guest-kernel", "vfio"] = "guest-kernel"

    # Names of features that are being tried.
    experimental: tuple[str, ...] = ()

    # A shim that talks, and how: logrus' text, or an object of JSON a line.
    enable_debug: bool = False
    log_format: Literal["text", "json"] = "text"

    # A trace of each pod's start by OpenTelemetry (the extra `otel`), and the collector that it is sent to: its URL for
    # OTLP over HTTP, and the name and password that it asks for. Without one OTEL_EXPORTER_OTLP_ENDPOINT counts, and
    # then http://localhost:4318.
    enable_tracing: bool = False
    jaeger_endpoint: str = ""
    jaeger_user: str = ""
    jaeger_password: str = ""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file whose content a pod vouches for.

    Attributes:
        annotation: What named the digest, for errors.
        path: The file.
        algorithm: As `hashlib` names it.
        digest: In hexadecimal, lower case.
    """

    annotation: str
    path: Path
    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """A `configuration.toml` with its drop-ins, and perhaps a pod's annotations.

    Attributes:
        hypervisor: The virtual machine.
        source: The main file it was read from.
        agent: The agent in the guest.
        runtime: The shim.
        assets: Files to be checked before they are used, with `kata_py.config.assets.verify`.
        policy: What the guest's agent may do for the host, in Rego; empty leaves it to the guest.
    """

    hypervisor: HypervisorConfig
    source: Path
    agent: AgentConfig = AgentConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    assets: tuple[Asset, ...] = ()
    policy: str = ""
