"""`[hypervisor.remote]`: machines that an adaptor makes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.config.annotations import annotated
from kata_py.config.errors import ConfigurationError
from kata_py.config.load import load
from kata_py.config.model import Configuration

HYPERVISOR = "io.katacontainers.config.hypervisor."
SHIPPED = Path(__file__).parents[3] / "configs" / "configuration-remote.toml"

# The effective values of OpenShift sandboxed containers' file.
OPENSHIFT = """
[hypervisor.remote]
remote_hypervisor_socket = "/run/peerpod/hypervisor.sock"
remote_hypervisor_timeout = 900
disable_guest_selinux = true
enable_annotations = ["default_vcpus", "default_memory", "machine_type"]
valid_hypervisor_paths = ["/usr/libexec/qemu-kiwi"]
default_vcpus = 1
default_maxvcpus = 0
default_bridges = 1
default_memory = 2048
cpu_features = "pmu=off"
shared_fs = "none"
virtio_fs_daemon = "/usr/libexec/virtiofsd"
virtio_fs_cache_size = 0
virtio_fs_extra_args = ["--thread-pool-size=1"]
virtio_fs_cache = "auto"
block_device_driver = "virtio-scsi"
disable_block_device_use = false
enable_iothreads = false
guest_hook_path = "/usr/share/oci/hooks"
kernel_params = "agent.log=debug"
enable_debug = true
[agent.kata]
enable_debug = true
debug_console_enabled = true
kernel_modules = []
[runtime]
internetworking_model = "none"
disable_new_netns = true
disable_guest_seccomp = true
sandbox_cgroup_only = false
static_sandbox_resource_mgmt = true
create_container_timeout = 900
experimental = []
sandbox_bind_mounts = []
"""


@pytest.fixture
def shipped() -> Configuration:
    return load(SHIPPED)


def test_the_shipped_file_has_upstream_s_values(shipped: Configuration) -> None:
    assert shipped.hypervisor.name == "remote"
    assert shipped.hypervisor.remote_hypervisor_socket == Path("/run/peerpod/hypervisor.sock")
    assert shipped.hypervisor.remote_hypervisor_timeout == 600
    assert shipped.runtime.static_sandbox_resource_mgmt


def test_openshift_s_file_loads(tmp_path: Path) -> None:
    file = tmp_path / "configuration-remote.toml"
    file.write_text(OPENSHIFT)
    configuration = load(file)
    assert configuration.hypervisor.remote_hypervisor_timeout == 900
    assert configuration.runtime.create_container_timeout == 900


def test_whatever_the_file_says_a_machine_elsewhere_shares_nothing_and_is_as_large_as_its_adaptor_makes_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "configuration-remote.toml"
    file.write_text(OPENSHIFT)
    hypervisor = load(file).hypervisor
    assert hypervisor.shared_fs == "none"
    assert hypervisor.disable_block_device_use
    assert (hypervisor.default_vcpus, hypervisor.default_memory) == (0, 0)


def test_a_pod_says_what_machine_it_wants_in_the_cloud_s_words(shipped: Configuration) -> None:
    asked = {
        f"{HYPERVISOR}machine_type": "Standard_D2as_v5",
        f"{HYPERVISOR}image": "/CommunityGalleries/coco/Images/podvm/Versions/1.0.0",
        f"{HYPERVISOR}default_vcpus": "64",
        f"{HYPERVISOR}default_memory": "64",
        f"{HYPERVISOR}default_gpus": "1",
        f"{HYPERVISOR}default_gpu_model": "tesla",
        f"{HYPERVISOR}cc_init_data": "H4sI",
    }
    hypervisor = annotated(shipped, asked, cpus=2).hypervisor
    assert hypervisor.machine_type == "Standard_D2as_v5"
    assert hypervisor.remote_image == "/CommunityGalleries/coco/Images/podvm/Versions/1.0.0"
    assert (hypervisor.default_vcpus, hypervisor.default_memory) == (64, 64)
    assert (hypervisor.default_gpus, hypervisor.default_gpu_model, hypervisor.cc_init_data) == (1, "tesla", "H4sI")


def test_what_is_for_machines_elsewhere_is_refused_for_those_here(tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    file.write_text("[hypervisor.qemu]\ndefault_gpus = 1\n")
    with pytest.raises(ConfigurationError, match=r"default_gpus counts only in \[hypervisor.remote\]"):
        load(file)
