"""Keys that upstream's configuration has and this project does not honour yet.

They are told from misspelt ones: where a file gives such a key the value that changes nothing here (upstream's
default as a rule, src/runtime/config/configuration-qemu.toml.in), the key is accepted, so that a file written for
upstream works; any other value is an error, never a wish that is silently ignored.
"""

from __future__ import annotations

from typing import Final

# Any value: it says how to do a thing that another key, or the lack of the thing, keeps from being done at all.
ANY: Final = None

_HYPERVISOR: dict[str, tuple[object, ...] | None] = {
    # What the guest boots.
    "initrd": ("",),
    "kernel_verity_params": ("",),
    "firmware": ("",),
    "firmware_volume": ("",),
    "pflashes": ([],),
    "disable_image_nvdimm": ANY,  # the image is a virtio-blk disk
    "guest_extension_images": ([],),
    # Memory and processors.
    "memory_offset": (0,),
    "enable_virtio_mem": (False,),
    "enable_mem_prealloc": (False,),
    "enable_hugepages": (False,),
    "reclaim_guest_freed_memory": (False,),
    "enable_guest_swap": (False,),
    "enable_numa": (False,),
    "numa_mapping": ([],),
    # Files and disks.
    "shared_fs": ("virtio-fs",),
    "virtio_fs_cache_size": (0,),
    "msize_9p": ANY,  # there is no 9p
    "disable_block_device_use": ANY,  # root file systems are shared as files
    "block_device_driver": ("virtio-scsi", "virtio-blk"),
    "block_device_aio": ("io_uring", "native", "threads"),
    "block_device_cache_set": (False,),
    "block_device_cache_direct": (False,),
    "block_device_cache_noflush": (False,),
    "block_device_logical_sector_size": (0,),
    "block_device_physical_sector_size": (0,),
    "enable_iothreads": (False,),
    "indep_iothreads": (0,),
    "enable_vhost_user_store": (False,),
    "vhost_user_store_path": ANY,
    "vhost_user_reconnect_timeout_sec": ANY,
    "disk_rate_limiter_bw_max_rate": (0,),
    "disk_rate_limiter_bw_one_time_burst": (0,),
    "disk_rate_limiter_ops_max_rate": (0,),
    "disk_rate_limiter_ops_one_time_burst": (0,),
    # Devices.
    "entropy_source": ("/dev/urandom", ""),  # there is no virtio-rng
    "default_bridges": ANY,  # ports are made as devices need them
    "enable_iommu": (False,),
    "enable_iommu_platform": (False,),
    "hot_plug_vfio": ("no-port",),
    "cold_plug_vfio": ("no-port",),
    "pcie_root_port": (0,),
    "pcie_switch_port": (0,),
    "disable_vhost_net": ANY,  # there is no network device
    "rx_rate_limiter_max_rate": (0,),
    "tx_rate_limiter_max_rate": (0,),
    "net_rate_limiter_bw_max_rate": (0,),
    "net_rate_limiter_bw_one_time_burst": (0,),
    "net_rate_limiter_ops_max_rate": (0,),
    "net_rate_limiter_ops_one_time_burst": (0,),
    # Confinement.
    "rootless": (False,),
    "disable_seccomp": (False,),
    "disable_selinux": ANY,  # the hypervisor is never labelled
    "disable_guest_selinux": (True,),
    "confidential_guest": (False,),
    "sev_snp_guest": (False,),
    "snp_id_block": ("",),
    "snp_id_auth": ("",),
    "snp_guest_policy": ANY,
    "tdx_quote_generation_service_socket_port": ANY,
    "measurement_algo": ANY,
    "jailer_path": ("",),
    # What annotations may change: nothing yet.
    "enable_annotations": ANY,
    "valid_hypervisor_paths": ANY,
    "valid_virtio_fs_daemon_paths": ANY,
    "valid_vhost_user_store_paths": ANY,
    "valid_entropy_sources": ANY,
    "valid_jailer_paths": ANY,
    # The rest.
    "guest_hook_path": ("",),
    "guest_memory_dump_path": ("",),
    "guest_memory_dump_paging": ANY,
    "disable_nesting_checks": ANY,
    "use_legacy_serial": (False,),
    "hypervisor_loglevel": ANY,  # for Cloud Hypervisor
    "remote_hypervisor_socket": ("",),
    "remote_hypervisor_timeout": ANY,
}

_AGENT: dict[str, tuple[object, ...] | None] = {
    "enable_tracing": (False,),
    "kernel_modules": ([],),
    "debug_console_enabled": (False,),
    "cdh_api_timeout": ANY,
    "launch_process_timeout": ANY,
    "visible_cdi_devices": (False,),
}

_RUNTIME: dict[str, tuple[object, ...] | None] = {
    "internetworking_model": ("tcfilter", "default", "none"),
    "disable_new_netns": (False,),
    "enable_vcpus_pinning": (False,),
    "guest_selinux_label": ("",),
    "enable_tracing": (False,),
    "jaeger_endpoint": ANY,
    "jaeger_user": ANY,
    "jaeger_password": ANY,
    "sandbox_cgroup_only": (False,),
    "static_sandbox_resource_mgmt": (False,),
    "sandbox_bind_mounts": ([],),
    "vfio_mode": ("guest-kernel",),
    "disable_guest_empty_dir": (True,),
    "emptydir_mode": ("shared-fs",),
    "experimental": ([],),
    "experimental_force_guest_pull": (False,),
    "enable_pprof": (False,),
    "dan_conf": ANY,
    "kubelet_root_dir": ANY,
    "pod_resource_api_sock": ("",),
}

_FACTORY: dict[str, tuple[object, ...] | None] = {
    "enable_template": (False,),
    "template_path": ANY,
    "vm_cache_number": (0,),
    "vm_cache_endpoint": ANY,
}

# By table; the hypervisor's stands for whatever its name.
NOT_HONOURED = {"hypervisor": _HYPERVISOR, "agent.kata": _AGENT, "runtime": _RUNTIME, "factory": _FACTORY}
