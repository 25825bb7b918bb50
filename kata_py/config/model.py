"""The configuration as frozen values, one class per table of `configuration.toml`.

A field is the key of that name; its type says what the file may hold, its default is what counts when the key is
missing. Keys and meanings are upstream's (src/runtime/config/configuration-qemu.toml.in); the keys marked *ours*
are not known there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, both ends included."""

    low: float
    high: float = float("inf")

    def __str__(self) -> str:
        return f"of at least {self.low:g}" if self.high == float("inf") else f"from {self.low:g} to {self.high:g}"


Seconds = Annotated[int, Range(1, 86_400)]
Mebibytes = Annotated[int, Range(0)]


def _qemu() -> Path:
    return Path(f"/usr/bin/qemu-system-{os.uname().machine}")


def _cpu_features() -> str:
    return "pmu=off" if os.uname().machine == "x86_64" else ""


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """`[hypervisor.NAME]`: the virtual machine. NAME is the driver's, an entry point of `kata_py.hypervisors`."""

    name: str

    # The hypervisor's program; the default is QEMU for the host's own architecture.
    path: Path = field(default_factory=_qemu)

    # What the guest boots. The initramfs (ours) is the small loader that finds and mounts the image; without it
    # the kernel must mount the image by itself. The image is erofs where upstream's is ext4: it is read-only,
    # half the size, and starts faster.
    kernel: Path = Path("/usr/share/kata-containers/vmlinux.container")
    initramfs: Path | None = Path("/usr/share/kata-containers/kata-initramfs.img")
    image: Path | None = Path("/usr/share/kata-containers/kata-containers.img")
    rootfs_type: Literal["erofs", "ext4", "xfs"] = "erofs"
    kernel_params: str = ""

    # The machine. An empty type is the driver's for the host's architecture: q35, or s390-ccw-virtio. The
    # accelerator (ours) and the agent's channel (ours) find out by themselves what the host can do.
    machine_type: str = ""
    machine_accelerators: str = ""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    agent_channel: Literal["auto", "vsock", "hybrid-vsock", "virtio-serial"] = "auto"
    cpu_features: str = field(default_factory=_cpu_features)
    seccompsandbox: str = ""

    # vCPUs at boot and at most. 0 at boot is 1; -1, or a number above the host's, is all of the host's; 0 at most
    # is all of the host's. Fractions are rounded up when the machine starts.
    default_vcpus: Annotated[float, Range(-1)] = 1.0
    default_maxvcpus: Annotated[int, Range(0)] = 0

    # Memory at boot and at most, in MiB, and how many pieces may be plugged in between. 0 at most is all of the
    # host's. Below 96 MiB no guest of ours reaches its agent.
    default_memory: Annotated[int, Range(96)] = 2048
    default_maxmemory: Mebibytes = 0
    memory_slots: Annotated[int, Range(0, 255)] = 10

    # The daemon that shares the container's files with the guest. `auto` keeps what the guest has read for a
    # second; arguments are added to the driver's own, in the form of the daemon written in Rust.
    virtio_fs_daemon: Path = Path("/usr/libexec/virtiofsd")
    virtio_fs_cache: Literal["never", "metadata", "auto", "always"] = "auto"
    virtio_fs_queue_size: Annotated[int, Range(1, 32_768)] = 1024
    virtio_fs_extra_args: tuple[str, ...] = ()

    # A guest that talks: kernel and console in the shim's log.
    enable_debug: bool = False

    # A second monitor for people, at /run/vc/vm/<id>/extra-monitor.sock; whoever may write there owns the machine.
    extra_monitor_socket: Literal["", "hmp", "qmp", "qmp-pretty"] = ""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`[agent.kata]`: the agent in the guest."""

    # How long the agent may take to answer after the machine was started: twice what a guest without KVM needs.
    dial_timeout: Seconds = 45

    # An agent that talks.
    enable_debug: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """`[runtime]`: the shim."""

    # How long the agent may take to create one container.
    create_container_timeout: Seconds = 60

    # Leave the seccomp profile of the container out: the machine's border stands in its place.
    disable_guest_seccomp: bool = True

    # A shim that talks.
    enable_debug: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """A `configuration.toml` with its drop-ins.

    Attributes:
        hypervisor: The virtual machine.
        source: The main file it was read from.
        agent: The agent in the guest.
        runtime: The shim.
    """

    hypervisor: HypervisorConfig
    source: Path
    agent: AgentConfig = AgentConfig()
    runtime: RuntimeConfig = RuntimeConfig()
