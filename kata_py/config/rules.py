"""Kata's annotations by name: the key that each stands for, how its text is read, what a pod may ask for.

Source: kata `virtcontainers/pkg/annotations/annotations.go`, `pkg/oci/utils.go`; the names of runtime-rs in
`kata-types/src/annotations/mod.rs`. What no table of the configuration has is refused when it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

from kata_py.config.bind import excerpt
from kata_py.config.values import Bound, Form, Range

CONFIG: Final = "io.katacontainers.config."
HYPERVISOR: Final = f"{CONFIG}hypervisor."
RUNTIME: Final = f"{CONFIG}runtime."
AGENT: Final = f"{CONFIG}agent."

# The guest's policy, base64 of Rego: no key of the configuration, and not for the guest's eyes.
POLICY: Final = f"{AGENT}policy"

# As Go's strconv.ParseBool.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

# What becomes part of a QEMU option: enough for every machine and feature there is, and no path.
_OPTIONS = Form(r"[\w.,=+:-]*", "of letters, digits and . , = + : - _")
_QUOTED = Form(r'(?:[^"]|"[^"]*")*', "with quotation marks in pairs")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an annotation stands for.

    Attributes:
        section: The table, as `kata_py.config.upstream` has it.
        key: The key in it.
        read: Its text as TOML would have the value; None goes by the key's type.
        bound: What a pod may ask for, where that is less than what the key may say.
        merge: The value from the key's present one and the annotation's, or a ValueError that completes "the
            annotation ..."; None replaces it.
    """

    section: str
    key: str
    read: Callable[[str], object] | None = None
    bound: Bound | None = None
    merge: Callable[[Any, Any], object] | None = None


# ---- from an annotation's text to what TOML would say


def reader(hint: Any) -> Callable[[str], object]:
    """How the text of a value of that type is read. What cannot be read stays text, to be found wrong."""
    while get_origin(hint) in (Annotated, UnionType):
        hint = get_args(hint)[0]
    return lambda text: read_as(tuple if get_origin(hint) is tuple else hint, text)


def read_as(kind: object, text: str) -> object:
    """A text as TOML would have a value of that kind; the text itself if it is none."""
    if kind is bool:
        return True if text in _TRUE else False if text in _FALSE else text
    if kind is int:
        return int(text) if re.fullmatch(r"[0-9]{1,20}", text, re.ASCII) else text
    if kind is float:
        return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) else text
    if kind in (tuple, list):
        return text.split()
    return text


def _json_list(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _modules(text: str) -> object:
    return [module.strip() for module in text.split(";") if module.strip()]


def _milliseconds(text: str) -> object:
    """runtime-rs counts in milliseconds, upstream's key and ours in seconds."""
    number = read_as(int, text)
    return number // 1000 if isinstance(number, int) and number % 1000 == 0 else text


def _block_driver(text: str) -> object:
    return {"virtio-blk-pci": "virtio-blk"}.get(text, text)  # as runtime-rs spells it


# ---- values that are added to


_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')


def _with_parameters(present: str, added: str) -> str:
    """Kernel parameters: one of the same name takes the place of the present one, others come after it."""
    new = _WORD.findall(added)
    names = {word.partition("=")[0] for word in new}
    return " ".join([*(word for word in _WORD.findall(present) if word.partition("=")[0] not in names), *new])


# What tunes virtiofsd. Everything else about it is decided by who shares the directory: a pod that could name another
# one, or turn the sandbox off, would have the host's files. No commas: the program in C would take them for the end.
_DAEMON_ARGUMENT = re.compile(
    r"--(?:allow-direct-io|announce-submounts|cache|inode-file-handles|killpriv-v2|log-level|no-announce-submounts"
    r"|no-killpriv-v2|no-posix-acl|no-readdirplus|no-writeback|no-xattr|posix-acl|readdirplus|rlimit-nofile"
    r"|thread-pool-size|writeback|xattr)(?:=[\w-]+)?",
    re.ASCII,
)


def _with_arguments(present: tuple[str, ...], added: tuple[str, ...]) -> tuple[str, ...]:
    for argument in added:
        if not _DAEMON_ARGUMENT.fullmatch(argument):
            raise ValueError(f"may tune virtiofsd, as --thread-pool-size=4 does, and not with {excerpt(argument)}")
    return (*present, *added)


# ---- the names


def _hypervisor(*names: str, **fields: Any) -> dict[str, Rule]:
    """Annotations that are called like their keys."""
    return {f"{HYPERVISOR}{name}": Rule("hypervisor", name, **fields) for name in names}


def _alias(name: str, key: str, **fields: Any) -> dict[str, Rule]:
    return {f"{HYPERVISOR}{name}": Rule("hypervisor", key, **fields)}


BOOTED = ("kernel", "image", "initrd", "firmware")

# In the order in which they are laid over.
RULES: dict[str, Rule] = {
    # What is booted.
    **_hypervisor(*BOOTED, "firmware_volume"),
    **_hypervisor("kernel_params", bound=_QUOTED, merge=_with_parameters),
    **_hypervisor("kernel_verity_params"),
    # Processors and memory.
    **_hypervisor("default_vcpus", "numa_mapping"),
    **_alias("default_max_vcpus", "default_maxvcpus"),
    **_alias("default_maxvcpus", "default_maxvcpus"),
    **_hypervisor(
        "default_memory", "memory_slots", "memory_offset", "enable_virtio_mem", "enable_mem_prealloc",
        "enable_hugepages", "reclaim_guest_freed_memory", "enable_guest_swap", "hugepage_type",
    ),
    # Disks.
    **_hypervisor("block_device_driver", read=_block_driver),
    **_hypervisor(
        "block_device_aio", "disable_block_device_use", "block_device_cache_set", "block_device_cache_direct",
        "block_device_cache_noflush", "block_device_num_queues", "block_device_queue_size", "enable_iothreads",
        "enable_vhost_user_store", "vhost_user_store_path", "vhost_user_reconnect_timeout_sec",
    ),
    **_hypervisor("indep_iothreads", bound=Range(1, 50)),
    **_alias("blk_logical_sector_size", "block_device_logical_sector_size"),
    **_alias("blk_physical_sector_size", "block_device_physical_sector_size"),
    **_hypervisor("block_device_logical_sector_size", "block_device_physical_sector_size"),
    # Files.
    **_hypervisor("shared_fs", "virtio_fs_daemon", "virtio_fs_cache", "virtio_fs_cache_size", "msize_9p"),
    **_hypervisor("virtio_fs_extra_args", read=_json_list, merge=_with_arguments),
    # Network.
    **_hypervisor("disable_vhost_net", "rx_rate_limiter_max_rate", "tx_rate_limiter_max_rate", "network_queues"),
    # Programs and devices.
    **_hypervisor("path", "jailer_path", "entropy_source", "guest_hook_path"),
    **_hypervisor("hot_plug_vfio", "cold_plug_vfio", "pcie_root_port", "pcie_switch_port"),
    **_hypervisor("cc_init_data", "default_gpus", "default_gpu_model", "prefetch_files.list"),
    # The machine.
    **_hypervisor("machine_type", "machine_accelerators", "cpu_features", bound=_OPTIONS),
    **_hypervisor(
        "enable_iommu", "enable_iommu_platform", "disable_image_nvdimm", "use_legacy_serial", "rootless",
    ),
    # The shim and the agent.
    **{
        f"{RUNTIME}{name}": Rule("runtime", name)
        for name in (
            "disable_guest_seccomp", "sandbox_cgroup_only", "disable_new_netns", "experimental_force_guest_pull",
            "create_container_timeout", "internetworking_model", "vfio_mode", "experimental", "enable_pprof",
            "guest_selinux_label", "enable_vcpus_pinning",
        )
    },
    "io.katacontainers.enable_vcpus_pinning": Rule("runtime", "enable_vcpus_pinning"),
    f"{AGENT}kernel_modules": Rule("agent.kata", "kernel_modules", read=_modules),
    f"{AGENT}enable_tracing": Rule("agent.kata", "enable_tracing"),
    f"{AGENT}container_pipe_size": Rule("agent.kata", "container_pipe_size"),
    f"{AGENT}cdh_api_timeout": Rule("agent.kata", "cdh_api_timeout"),
    f"{AGENT}cdh_api_timeout_ms": Rule("agent.kata", "cdh_api_timeout", read=_milliseconds),
}  # fmt: skip

# Keys that an annotation for another one sets back, unless it says the same of its own.
CLEARS: dict[str, tuple[str, object]] = {
    "image": ("initrd", None),
    "hot_plug_vfio": ("cold_plug_vfio", "no-port"),
    "cold_plug_vfio": ("hot_plug_vfio", "no-port"),
}

# Digests, and the keys of the files that they are for.
HASHES: dict[str, str] = {
    **{f"{HYPERVISOR}{key}_hash": key for key in BOOTED},
    f"{HYPERVISOR}hypervisor_hash": "path",
    f"{HYPERVISOR}path_hash": "path",  # as runtime-rs spells it
}
HASH_TYPES = ("io.katacontainers.asset_hash_type", f"{HYPERVISOR}asset_hash_type")

# Entries of `enable_annotations` in upstream's files that fit only a part of the name they are meant for.
WRITTEN_AS = {"default_gpu_model": ("gpu_model",)}

REFUSED: dict[str, str] = {
    f"{HYPERVISOR}firmware_volume_hash": "there is no firmware volume",
    f"{HYPERVISOR}jailer_hash": "there is no jailer",
    f"{RUNTIME}name": "the runtime class says which runtime it is",
    f"{RUNTIME}hypervisor_name": "the configuration says which hypervisor it is",
    f"{RUNTIME}agent_name": "there is one agent",
    f"{RUNTIME}sandbox_bind_mounts": "a pod may not choose files of the host; the configuration can",
    f"{RUNTIME}shared_mounts": "a pod may not choose files of the host",
    "io.katacontainers.config_path": "a pod may not choose its configuration; its runtime class does",
    "io.katacontainers.container.resource.swappiness": "containers have no swap yet",
    "io.katacontainers.container.resource.swap_in_bytes": "containers have no swap yet",
    "sgx.intel.com/epc": "machines have no enclave memory",
}
