"""Keys that are not honoured yet: the model's, and others of upstream's.

They are told from misspelt ones: where a file gives such a key a value that changes nothing here (upstream's default
as a rule, src/runtime/config/configuration-qemu.toml.in), the key is accepted, so that a file written for upstream
works; any other value is an error, never a wish that is silently ignored.
"""

from __future__ import annotations

from typing import Final

# Any value: it says how to do a thing that another key, or the lack of the thing, keeps from being done at all.
ANY: Final = None

# What the model has already and no code reads yet, with the values accepted beside the default. **Whoever lands a
# feature deletes its line here, and that is all**: type, default and documentation are in place.
PENDING: dict[str, dict[str, tuple[object, ...] | None]] = {
    "hypervisor": {
        # Memory.
        "memory_offset": (),
        # Files and disks.
        "virtio_fs_cache_size": (),  # QEMU has no window for direct access
        # The rest.
        "guest_memory_dump_path": (),
    },
    "agent.kata": {},
    "runtime": {
        # Network.
        "disable_new_netns": ANY,  # the machine always lives in the pod's, or in an empty one
        "dan_conf": ANY,  # no device is attached past the pod's links
        # Volumes.
        "kubelet_root_dir": ANY,  # its volumes are known wherever they are
        # The rest.
        "experimental": (),
    },
}

# What the model has not.
_HYPERVISOR: dict[str, tuple[object, ...] | None] = {
    # What the guest boots.
    "kernel_verity_params": ("",),
    "firmware_volume": ("",),
    "pflashes": ([],),
    "disable_image_nvdimm": ANY,  # the image is a virtio-blk disk
    "guest_extension_images": ([],),
    # Memory and processors.
    "enable_guest_swap": (False,),
    "enable_numa": (False,),
    "numa_mapping": ([],),
    # Files and disks.
    "msize_9p": ANY,  # there is no 9p
    "enable_vhost_user_store": (False,),
    "vhost_user_store_path": ANY,
    "vhost_user_reconnect_timeout_sec": ANY,
    "disk_rate_limiter_bw_max_rate": (0,),
    "disk_rate_limiter_bw_one_time_burst": (0,),
    "disk_rate_limiter_ops_max_rate": (0,),
    "disk_rate_limiter_ops_one_time_burst": (0,),
    # Devices.
    "enable_iommu_platform": (False,),
    "net_rate_limiter_bw_max_rate": (0,),
    "net_rate_limiter_bw_one_time_burst": (0,),
    "net_rate_limiter_ops_max_rate": (0,),
    "net_rate_limiter_ops_one_time_burst": (0,),
    # Confinement.
    "disable_seccomp": (False,),
    "disable_guest_selinux": (True,),
    "confidential_guest": (False,),
    "sev_snp_guest": (False,),
    "snp_id_block": ("",),
    "snp_id_auth": ("",),
    "snp_guest_policy": ANY,
    "tdx_quote_generation_service_socket_port": ANY,
    "measurement_algo": ANY,
    "jailer_path": ("",),
    # What annotations may change: none of these.
    "valid_vhost_user_store_paths": ANY,
    "valid_jailer_paths": ANY,
    # The rest.
    "guest_memory_dump_paging": ANY,
    "disable_nesting_checks": ANY,
    "use_legacy_serial": (False,),
    "hypervisor_loglevel": ANY,  # for Cloud Hypervisor
}

_AGENT: dict[str, tuple[object, ...] | None] = {
    "visible_cdi_devices": (False,),
}

_RUNTIME: dict[str, tuple[object, ...] | None] = {
    "guest_selinux_label": ("",),
    "pod_resource_api_sock": ("",),
}

_FACTORY: dict[str, tuple[object, ...] | None] = {
    "enable_template": (False,),
    "template_path": ANY,
    "vm_cache_number": (0,),
    "vm_cache_endpoint": ANY,
}

# What the model has and upstream does not know: a file for both leaves these out.
OURS: dict[str, frozenset[str]] = {
    "hypervisor": frozenset({"accelerator", "agent_channel", "cc_init_data", "initramfs", "remote_image"}),
    "runtime": frozenset({"log_format"}),
}

# By table; the hypervisor's stands for whatever its name.
NOT_HONOURED = {"hypervisor": _HYPERVISOR, "agent.kata": _AGENT, "runtime": _RUNTIME, "factory": _FACTORY}
