"""What keys contradict each other: nothing that one key can be blamed for alone."""

from __future__ import annotations

from dataclasses import fields

from kata_py.config.hypervisor import HypervisorConfig, RemoteConfig
from kata_py.config.model import REMOTE, Configuration, RuntimeConfig


def contradiction(configuration: Configuration) -> str:
    """What contradicts itself, with the table it is in; empty if nothing does."""
    hypervisor = configuration.hypervisor
    if found := _machine(hypervisor) or _devices(hypervisor) or _remote(hypervisor):
        return f"{found}, in [hypervisor.{configuration.hypervisor.name}]"
    if found := _runtime(configuration.runtime):
        return f"{found}, in [runtime]"
    if configuration.runtime.vfio_mode == "vfio" and not configuration.hypervisor.enable_iommu:
        return f"vfio_mode vfio needs enable_iommu in [hypervisor.{configuration.hypervisor.name}]"
    return ""


def _machine(hypervisor: HypervisorConfig) -> str:
    if hypervisor.initramfs is None and hypervisor.image is None and hypervisor.initrd is None:
        return "neither initramfs, image nor initrd: the guest has no root file system"
    if 0 < hypervisor.default_maxmemory < hypervisor.default_memory:
        return f"default_maxmemory {hypervisor.default_maxmemory} is below default_memory {hypervisor.default_memory}"
    if 0 < hypervisor.default_maxvcpus < hypervisor.default_vcpus:
        return f"default_maxvcpus {hypervisor.default_maxvcpus} is below default_vcpus {hypervisor.default_vcpus:g}"
    if hypervisor.extra_monitor_socket and not hypervisor.enable_debug:
        return "extra_monitor_socket is for debugging alone, and enable_debug is false"
    return ""


def _devices(hypervisor: HypervisorConfig) -> str:
    logical, physical = hypervisor.block_device_logical_sector_size, hypervisor.block_device_physical_sector_size
    if 0 < physical < logical:
        return f"block_device_logical_sector_size {logical} is above block_device_physical_sector_size {physical}"
    for key in ("block_device_cache_direct", "block_device_cache_noflush"):
        if getattr(hypervisor, key) and not hypervisor.block_device_cache_set:
            return f"{key} counts only with block_device_cache_set, which is false"
    if hypervisor.enable_iothreads and hypervisor.block_device_driver != "virtio-scsi":
        return "enable_iothreads counts only with block_device_driver virtio-scsi; indep_iothreads is for the others"
    if hypervisor.indep_iothreads and hypervisor.block_device_driver == "virtio-scsi":
        return "indep_iothreads does not count with block_device_driver virtio-scsi; enable_iothreads does"
    if "no-port" not in (hypervisor.hot_plug_vfio, hypervisor.cold_plug_vfio):
        return "hot_plug_vfio and cold_plug_vfio exclude each other"
    for key in ("hot_plug_vfio", "cold_plug_vfio"):
        if hypervisor.rootless and getattr(hypervisor, key) != "no-port":
            return f"{key} needs rootless to be false: a user of QEMU's own may not open devices of the host"
    return ""


def _remote(hypervisor: HypervisorConfig) -> str:
    if hypervisor.name != REMOTE:
        for field in fields(RemoteConfig):
            if getattr(hypervisor, field.name) != field.default:
                return f"{field.name} counts only in [hypervisor.{REMOTE}]"
    return ""


def _runtime(runtime: RuntimeConfig) -> str:
    if runtime.emptydir_mode == "block-encrypted":
        return 'emptydir_mode "block-encrypted" is not supported: it needs a confidential guest; "block-plain" does not'
    if runtime.emptydir_mode != "shared-fs" and not runtime.disable_guest_empty_dir:
        return f'disable_guest_empty_dir = false does not count with emptydir_mode "{runtime.emptydir_mode}"'
    if runtime.disable_new_netns and runtime.internetworking_model != "none":
        return f'disable_new_netns needs internetworking_model "none", not "{runtime.internetworking_model}"'
    return ""
