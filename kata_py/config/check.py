"""What keys contradict each other: nothing that one key can be blamed for alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from kata_py.config.hypervisor import HypervisorConfig, RemoteConfig
from kata_py.config.model import REMOTE, Configuration, RuntimeConfig


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Keys that exclude each other.

    Attributes:
        table: Their table: `hypervisor`, or `runtime`.
        keys: The keys, the one to be blamed first.
        cause: What is wrong, in words, with the table.
    """

    table: str
    keys: tuple[str, ...]
    cause: str


def contradiction(configuration: Configuration) -> str:
    """The first of what contradicts itself, with the table it is in; empty if nothing does."""
    return next((each.cause for each in contradictions(configuration)), "")


def contradictions(configuration: Configuration) -> Iterator[Contradiction]:
    """All that contradicts itself."""
    hypervisor, runtime = configuration.hypervisor, configuration.runtime
    for check in (_machine, _devices, _remote):
        for cause, *keys in check(hypervisor):
            yield Contradiction("hypervisor", tuple(keys), f"{cause}, in [hypervisor.{hypervisor.name}]")
    for cause, *keys in _runtime(runtime):
        yield Contradiction("runtime", tuple(keys), f"{cause}, in [runtime]")
    if runtime.vfio_mode == "vfio" and not hypervisor.enable_iommu:
        cause = f"vfio_mode vfio needs enable_iommu in [hypervisor.{hypervisor.name}]"
        yield Contradiction("runtime", ("vfio_mode", "enable_iommu"), cause)


# Each of these yields what is wrong, and the keys.


def _machine(hypervisor: HypervisorConfig) -> Iterator[tuple[str, ...]]:
    if hypervisor.initramfs is None and hypervisor.image is None and hypervisor.initrd is None:
        cause = "neither initramfs, image nor initrd: the guest has no root file system"
        yield cause, "image", "initramfs", "initrd"
    memory, most = hypervisor.default_memory, hypervisor.default_maxmemory
    if 0 < most < memory:
        yield f"default_maxmemory {most} is below default_memory {memory}", "default_maxmemory", "default_memory"
    if 0 < hypervisor.default_maxvcpus < hypervisor.default_vcpus:
        cause = f"default_maxvcpus {hypervisor.default_maxvcpus} is below default_vcpus {hypervisor.default_vcpus:g}"
        yield cause, "default_maxvcpus", "default_vcpus"
    if hypervisor.extra_monitor_socket and not hypervisor.enable_debug:
        cause = "extra_monitor_socket is for debugging alone, and enable_debug is false"
        yield cause, "extra_monitor_socket", "enable_debug"


def _devices(hypervisor: HypervisorConfig) -> Iterator[tuple[str, ...]]:
    logical, physical = hypervisor.block_device_logical_sector_size, hypervisor.block_device_physical_sector_size
    if 0 < physical < logical:
        names = ("block_device_logical_sector_size", "block_device_physical_sector_size")
        yield f"{names[0]} {logical} is above {names[1]} {physical}", *names
    for key in ("block_device_cache_direct", "block_device_cache_noflush"):
        if getattr(hypervisor, key) and not hypervisor.block_device_cache_set:
            cause = f"{key} counts only with block_device_cache_set, which is false"
            yield cause, key, "block_device_cache_set"
    if hypervisor.enable_iothreads and hypervisor.block_device_driver != "virtio-scsi":
        cause = "enable_iothreads counts only with block_device_driver virtio-scsi; indep_iothreads is for the others"
        yield cause, "enable_iothreads", "block_device_driver"
    if hypervisor.indep_iothreads and hypervisor.block_device_driver == "virtio-scsi":
        cause = "indep_iothreads does not count with block_device_driver virtio-scsi; enable_iothreads does"
        yield cause, "indep_iothreads", "block_device_driver"
    if "no-port" not in (hypervisor.hot_plug_vfio, hypervisor.cold_plug_vfio):
        yield "hot_plug_vfio and cold_plug_vfio exclude each other", "hot_plug_vfio", "cold_plug_vfio"
    for key in ("hot_plug_vfio", "cold_plug_vfio"):
        if hypervisor.rootless and getattr(hypervisor, key) != "no-port":
            cause = f"{key} needs rootless to be false: a user of QEMU's own may not open devices of the host"
            yield cause, key, "rootless"


def _remote(hypervisor: HypervisorConfig) -> Iterator[tuple[str, ...]]:
    if hypervisor.name != REMOTE:
        for field in fields(RemoteConfig):
            if getattr(hypervisor, field.name) != field.default:
                yield f"{field.name} counts only in [hypervisor.{REMOTE}]", field.name


def _runtime(runtime: RuntimeConfig) -> Iterator[tuple[str, ...]]:
    mode, model = runtime.emptydir_mode, runtime.internetworking_model
    if mode == "block-encrypted":
        cause = (
            'emptydir_mode "block-encrypted" is not supported: it needs a confidential guest; "block-plain" does not'
        )
        yield cause, "emptydir_mode"
    elif mode != "shared-fs" and not runtime.disable_guest_empty_dir:
        cause = f'disable_guest_empty_dir = false does not count with emptydir_mode "{mode}"'
        yield cause, "disable_guest_empty_dir", "emptydir_mode"
    if runtime.disable_new_netns and model != "none":
        cause = f'disable_new_netns needs internetworking_model "none", not "{model}"'
        yield cause, "disable_new_netns", "internetworking_model"
