"""`[hypervisor.NAME]` as frozen values, one class per topic; `HypervisorConfig` has them all.

A field is the key of that name; its type says what the file may hold, its default is what counts when the key is
missing. Keys and meanings are upstream's (src/runtime/config/configuration-qemu.toml.in); the keys marked *ours*
are not known there. Whether a key is honoured already is told in `kata_py.config.upstream`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from kata_py.config.values import (
    BitsPerSecond,
    Expressions,
    Globs,
    Mebibytes,
    Range,
    SeccompSandbox,
    Seconds,
    SectorSize,
)

VfioPort = Literal["no-port", "bridge-port", "root-port", "switch-port"]


def _qemu() -> Path:
    return Path(f"/usr/bin/qemu-system-{os.uname().machine}")


def _cpu_features() -> str:
    return "pmu=off" if os.uname().machine == "x86_64" else ""


def _qemu_paths() -> Globs:
    return (str(_qemu()),)


@dataclass(frozen=True)
class DriverConfig:
    """Which hypervisor it is."""

    # The driver, an entry point of `kata_py.hypervisors`; no key, but the table's name.
    name: str

    # The hypervisor's program; the default is QEMU for the host's own architecture.
    path: Path = field(default_factory=_qemu)


@dataclass(frozen=True)
class BootConfig:
    """What the guest boots."""

    # The initramfs (ours) is the small loader that finds and mounts the image; without it the kernel must mount the
    # image by itself. The image is erofs where upstream's is ext4: it is read-only, half the size, and starts faster.
    kernel: Path = Path("/usr/share/kata-containers/vmlinux.container")
    initramfs: Path | None = Path("/usr/share/kata-containers/kata-initramfs.img")
    image: Path | None = Path("/usr/share/kata-containers/kata-containers.img")
    rootfs_type: Literal["erofs", "ext4", "xfs"] = "erofs"

    # A whole root file system in one archive: it stands in the place of initramfs and image.
    initrd: Path | None = None

    # What runs before the kernel; without it the machine type's own.
    firmware: Path | None = None
    kernel_params: str = ""


@dataclass(frozen=True)
class MachineConfig:
    """The machine and its processors."""

    # An empty type is the driver's for the host's architecture: q35, or s390-ccw-virtio. The accelerator (ours) and
    # the agent's channel (ours) find out by themselves what the host can do.
    machine_type: str = ""
    machine_accelerators: str = ""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    agent_channel: Literal["auto", "vsock", "hybrid-vsock", "virtio-serial"] = "auto"
    cpu_features: str = field(default_factory=_cpu_features)

    # vCPUs at boot and at most. 0 at boot is 1; -1, or a number above the host's, is all of the host's; 0 at most
    # is all of the host's. Fractions are rounded up when the machine starts.
    default_vcpus: Annotated[float, Range(-1)] = 1.0
    default_maxvcpus: Annotated[int, Range(0)] = 0


@dataclass(frozen=True)
class MemoryConfig:
    """Guest memory."""

    # At boot and at most, in MiB, and how many pieces may be plugged in between. 0 at most is all of the host's.
    # Below 96 MiB no guest of ours reaches its agent.
    default_memory: Annotated[int, Range(96)] = 2048
    default_maxmemory: Mebibytes = 0
    memory_slots: Annotated[int, Range(0, 255)] = 10

    # Added to the most that the machine may have, for devices that take address space, in MiB.
    memory_offset: Mebibytes = 0

    # Grow and shrink by virtio-mem instead of by pieces.
    enable_virtio_mem: bool = False

    # Take all of the memory when the machine starts; take it from the host's huge pages, which implies the former;
    # give back what the guest has freed.
    enable_mem_prealloc: bool = False
    enable_hugepages: bool = False
    reclaim_guest_freed_memory: bool = False


@dataclass(frozen=True)
class ShareConfig:
    """The containers' files that host and guest share."""

    shared_fs: Literal["virtio-fs", "none"] = "virtio-fs"

    # The daemon. `auto` keeps what the guest has read for a second; arguments are added to the driver's own, in the
    # form of the daemon written in Rust. The size of the window for direct access is in MiB.
    virtio_fs_daemon: Path = Path("/usr/libexec/virtiofsd")
    virtio_fs_cache: Literal["never", "metadata", "auto", "always"] = "auto"
    virtio_fs_cache_size: Mebibytes = 0
    virtio_fs_queue_size: Annotated[int, Range(1, 32_768)] = 1024
    virtio_fs_extra_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockConfig:
    """Disks of the containers; the guest's own image is not meant."""

    disable_block_device_use: bool = True
    block_device_driver: Literal["virtio-blk", "virtio-scsi", "virtio-blk-ccw"] = "virtio-blk"
    # Threads are what QEMU has everywhere; upstream's default is io_uring.
    block_device_aio: Literal["io_uring", "native", "threads"] = "threads"

    # Whether the next two count: pass the host's page cache by; do not wait for the disk when the guest flushes.
    block_device_cache_set: bool = False
    block_device_cache_direct: bool = False
    block_device_cache_noflush: bool = False

    # Bytes; 0 is QEMU's choice.
    block_device_logical_sector_size: SectorSize = 0
    block_device_physical_sector_size: SectorSize = 0

    # Threads of their own for disks: one for the SCSI controller, and this many for disks of virtio-blk.
    enable_iothreads: bool = False
    indep_iothreads: Annotated[int, Range(0, 50)] = 0

    # Bridges that disks and network interfaces are plugged into, 30 devices each; from 1 to 5, and what is below or
    # above counts as that. s390x needs none.
    default_bridges: Annotated[int, Range(0)] = 1


@dataclass(frozen=True)
class NetworkConfig:
    """Network devices."""

    disable_vhost_net: bool = False
    rx_rate_limiter_max_rate: BitsPerSecond = 0
    tx_rate_limiter_max_rate: BitsPerSecond = 0


@dataclass(frozen=True)
class DeviceConfig:
    """Other devices."""

    # Where the guest's random number device gets its bytes. None is no such device, and the default: a guest of ours
    # has the processor's own random numbers and the kernel's, and starts sooner.
    entropy_source: Path | None = None

    # Where devices of the host are plugged, into the running machine or before it starts, and ports kept for them.
    hot_plug_vfio: VfioPort = "no-port"
    cold_plug_vfio: VfioPort = "no-port"
    pcie_root_port: Annotated[int, Range(0, 16)] = 0
    pcie_switch_port: Annotated[int, Range(0, 16)] = 0

    # An IOMMU in the guest: a container that drives a device of the host itself (vfio_mode) needs one.
    enable_iommu: bool = False


@dataclass(frozen=True)
class ConfinementConfig:
    """What keeps the hypervisor in, and what pods may change of all this."""

    # QEMU's own filter of system calls; upstream's default is none. A user of its own for each QEMU. And whether QEMU
    # and its helpers go without the SELinux label that the pod's processes have.
    seccompsandbox: SeccompSandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    rootless: bool = False
    disable_selinux: bool = False

    # Annotations of the hypervisor that pods may use, as expressions that fit the whole of a name, and the files
    # that they may name. Upstream's default, and the file that counts without any annotation.
    enable_annotations: Expressions = ("enable_iommu", "kernel_params", "kernel_verity_params")
    valid_hypervisor_paths: Globs = field(default_factory=_qemu_paths)
    valid_virtio_fs_daemon_paths: Globs = ("/usr/libexec/virtiofsd",)
    valid_entropy_sources: Globs = ("/dev/urandom", "/dev/random", "")


@dataclass(frozen=True)
class DebugConfig:
    """For whoever looks into a guest."""

    # A guest that talks: kernel, console and agent in the shim's log.
    enable_debug: bool = False

    # A second monitor for people, at /run/vc/vm/<id>/extra-monitor.sock; whoever may write there owns the machine.
    extra_monitor_socket: Literal["", "hmp", "qmp", "qmp-pretty"] = ""

    # Where a panicked guest's memory is kept.
    guest_memory_dump_path: Path | None = None

    # A directory of the guest with OCI hooks that its agent runs.
    guest_hook_path: Path | None = None


@dataclass(frozen=True)
class RemoteConfig:
    """A machine elsewhere, made by an adaptor on this node: for `[hypervisor.remote]` alone."""

    # Where the adaptor listens, and how long it may take to start a machine.
    remote_hypervisor_socket: Path = Path("/run/peerpod/hypervisor.sock")
    remote_hypervisor_timeout: Seconds = 600

    # What the machine boots (ours; a pod says it by the annotation `image`), in the words of its cloud. Empty is the
    # adaptor's own.
    remote_image: str = ""

    # Graphics processors.
    default_gpus: Annotated[int, Range(0)] = 0
    default_gpu_model: str = ""

    # Initdata of pods that bring none (ours), in the form of the annotation: base64 of gzip of TOML.
    cc_init_data: str = ""


@dataclass(frozen=True)
class HypervisorConfig(
    RemoteConfig,
    DebugConfig,
    ConfinementConfig,
    DeviceConfig,
    NetworkConfig,
    BlockConfig,
    ShareConfig,
    MemoryConfig,
    MachineConfig,
    BootConfig,
    DriverConfig,  # the last one's fields come first
):
    """`[hypervisor.NAME]`: the virtual machine. A function that needs a topic alone takes that topic's class."""
