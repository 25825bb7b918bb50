"""The configuration that is shipped, and files written for upstream."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from kata_py.config.hypervisor import RemoteConfig
from kata_py.config.load import load
from kata_py.config.model import AgentConfig, Configuration, HypervisorConfig, RuntimeConfig
from kata_py.config.upstream import NOT_HONOURED, PENDING

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = CONFIGS / "configuration-qemu.toml"
TABLES = {"hypervisor.qemu": HypervisorConfig, "agent.kata": AgentConfig, "runtime": RuntimeConfig}
KEY = re.compile(r"^#?([a-z0-9_]+) = ", re.MULTILINE)

# What upstream's template for x86_64 sets, with its values.
UPSTREAM = """
[hypervisor.qemu]
path = "/usr/bin/qemu-system-x86_64"
kernel = "/usr/share/kata-containers/vmlinux.container"
image = "/usr/share/kata-containers/kata-containers.img"
machine_type = "q35"
rootfs_type = "ext4"
confidential_guest = false
rootless = false
enable_annotations = ["enable_iommu", "kernel_params", "kernel_verity_params"]
valid_hypervisor_paths = ["/usr/bin/qemu-system-x86_64"]
kernel_params = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
kernel_verity_params = ""
firmware = ""
firmware_volume = ""
machine_accelerators = ""
seccompsandbox = ""
cpu_features = "pmu=off"
default_vcpus = 1
default_maxvcpus = 0
default_bridges = 1
default_memory = 2048
memory_slots = 10
default_maxmemory = 0
memory_offset = 0
disable_block_device_use = true
shared_fs = "virtio-fs"
virtio_fs_daemon = "/usr/libexec/virtiofsd"
valid_virtio_fs_daemon_paths = ["/usr/libexec/virtiofsd"]
virtio_fs_cache_size = 0
virtio_fs_queue_size = 1024
virtio_fs_extra_args = ["--thread-pool-size=1", "--announce-submounts"]
virtio_fs_cache = "auto"
block_device_driver = "virtio-scsi"
block_device_aio = "io_uring"
enable_iothreads = false
enable_vhost_user_store = false
vhost_user_store_path = "/var/run/kata-containers/vhost-user"
valid_vhost_user_store_paths = ["/var/run/kata-containers/vhost-user"]
vhost_user_reconnect_timeout_sec = 0
valid_entropy_sources = ["/dev/urandom", "/dev/random", ""]
disable_selinux = false
disable_guest_selinux = true

[factory]

[agent.kata]
kernel_modules = []
dial_timeout = 45

[runtime]
internetworking_model = "tcfilter"
disable_guest_seccomp = true
enable_vcpus_pinning = false
sandbox_cgroup_only = false
static_sandbox_resource_mgmt = false
sandbox_bind_mounts = []
vfio_mode = "guest-kernel"
disable_guest_empty_dir = true
experimental = []
create_container_timeout = 60
dan_conf = "/run/kata-containers/dans"
experimental_force_guest_pull = false
"""


def defaults(source: Path) -> Configuration:
    hypervisor = replace(
        HypervisorConfig("qemu"), path=Path("/usr/bin/qemu-system-x86_64"), cpu_features="pmu=off"
    )  # the two defaults that go by the host's architecture
    return Configuration(hypervisor, source)


def documented() -> dict[str, set[str]]:
    """The keys by table that the shipped file shows."""
    _, *parts = re.split(r"^\[([\w.]+)\]$", SHIPPED.read_text(), flags=re.MULTILINE)
    return {table: set(KEY.findall(text)) for table, text in zip(parts[::2], parts[1::2], strict=True)}


def test_every_documented_key_is_read_and_every_key_read_is_documented() -> None:
    read = {table: {field.name for field in fields(shape)} - {"name"} for table, shape in TABLES.items()}
    read["hypervisor.qemu"] -= {field.name for field in fields(RemoteConfig)}
    assert documented() == read


def test_the_documented_values_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    file.write_text(re.sub(r"^#(?=[a-z0-9_]+ = )", "", SHIPPED.read_text(), flags=re.MULTILINE))
    assert load(file) == defaults(file)


def test_the_shipped_file_leaves_the_defaults_alone() -> None:
    assert load(SHIPPED) == Configuration(HypervisorConfig("qemu"), SHIPPED)


def test_a_file_written_for_upstream_loads(tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    file.write_text(UPSTREAM)
    hypervisor = replace(
        defaults(file).hypervisor,
        machine_type="q35",
        rootfs_type="ext4",
        kernel_params="cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
        virtio_fs_extra_args=("--thread-pool-size=1", "--announce-submounts"),
        block_device_driver="virtio-scsi",
        block_device_aio="io_uring",
        seccompsandbox="",
    )
    assert load(file) == Configuration(hypervisor, file)


@pytest.mark.parametrize(("table", "shape"), TABLES.items())
def test_every_pending_key_is_the_model_s_and_no_other_key_that_is_not_honoured_is(table: str, shape: type) -> None:
    section = table.removesuffix(".qemu")
    keys = {field.name for field in fields(shape)}
    assert PENDING[section].keys() <= keys
    assert not keys & NOT_HONOURED[section].keys()


def read_by_code() -> set[str]:
    """The keys that the code outside of loading takes from a configuration, not only to tell them (`kata-ctl env`)."""
    root = Path(__file__).parents[3]
    sources = [*(root / "kata_py").rglob("*.py"), *(root / "qemu").rglob("*.py")]
    loading = {root / "kata_py" / "config" / f"{name}.py" for name in ("check", "hypervisor", "load", "model")}
    loading.add(root / "kata_py/node/environment.py")
    holder = re.compile(r"\b(?:hypervisor|agent|runtime|_?config|boot|block|memory|settings|tuning)\.([a-z0-9_]+)\b")
    return {key for source in sources if source not in loading for key in holder.findall(source.read_text())}


@pytest.mark.parametrize(("table", "shape"), TABLES.items())
def test_every_key_is_either_read_by_code_or_pending(table: str, shape: type) -> None:
    keys = {field.name for field in fields(shape)} - {"name"}
    pending = PENDING[table.removesuffix(".qemu")].keys()
    assert keys & read_by_code() == keys - pending
