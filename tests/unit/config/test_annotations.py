"""What pods may ask for, what becomes of it, and what each refusal says."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.config.annotations import annotated
from kata_py.config.errors import ConfigurationError
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.config.rules import AGENT, HASH_TYPES, HASHES, HYPERVISOR, RULES, RUNTIME
from kata_py.config.upstream import ANY, NOT_HONOURED, PENDING

SOURCE = Path("/etc/kata-containers/configuration.toml")


def configuration(name: str = "qemu", **hypervisor: Any) -> Configuration:
    """One that lets pods ask for anything, unless told otherwise."""
    return Configuration(HypervisorConfig(name, **{"enable_annotations": (".*",), **hypervisor}), SOURCE)


def asked(annotations: dict[str, str], **hypervisor: Any) -> Configuration:
    return annotated(configuration(**hypervisor), annotations, cpus=8)


def machine(**annotations: str) -> HypervisorConfig:
    """The hypervisor's table under annotations of the hypervisor."""
    return asked({HYPERVISOR + name: text for name, text in annotations.items()}).hypervisor


def refused(annotations: dict[str, str], **hypervisor: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        asked(annotations, **hypervisor)
    return str(caught.value)


# ---- which annotations are looked at


def test_a_pod_without_annotations_of_kata_s_has_the_configuration_itself() -> None:
    base = configuration()
    others = {"io.kubernetes.cri.sandbox-id": "x", "io.katacontainers.pkg.oci.bundle_path": "/x", "kata": "1", "": ""}
    assert annotated(base, {}) == annotated(base, others) == base


@pytest.mark.parametrize(
    ("name", "near"),
    [
        (f"{HYPERVISOR}defualt_memory", f"{HYPERVISOR}default_memory"),
        (f"{HYPERVISOR}Default_memory", f"{HYPERVISOR}default_memory"),
        (f"{HYPERVISOR}default_memory\n", f"{HYPERVISOR}default_memory"),
        (f"{HYPERVISOR}enable_annotations", None),
        (f"{HYPERVISOR}valid_hypervisor_paths", None),
        (f"{HYPERVISOR}name", None),
        (f"{RUNTIME}disable_guest_secomp", f"{RUNTIME}disable_guest_seccomp"),
        (f"{AGENT}kernel_module", f"{AGENT}kernel_modules"),
        ("io.katacontainers.config.hypervisor", None),
        ("io.katacontainers.config.", None),
    ],
)
def test_an_unknown_annotation_is_named_with_the_nearest_valid_one(name: str, near: str | None) -> None:
    said = refused({name: "1"})
    assert said.startswith(f"unknown annotation {name}; the nearest valid one is io.katacontainers.")
    assert near is None or said.endswith(f"is {near}")


@pytest.mark.parametrize(
    "name",
    [
        f"{RUNTIME}sandbox_bind_mounts", f"{RUNTIME}shared_mounts", f"{RUNTIME}name", "io.katacontainers.config_path",
        "io.katacontainers.container.resource.swappiness", "sgx.intel.com/epc", f"{HYPERVISOR}jailer_hash",
    ],
)  # fmt: skip
def test_what_is_known_and_never_supported_is_refused_with_the_reason(name: str) -> None:
    assert refused({name: "/etc:/etc"}).startswith(f"annotation {name} is not supported: ")


# ---- the gate


@pytest.mark.parametrize(
    "enabled", [("default_memory",), ("default_.*",), ("x", ".*memory"), ("default_(vcpus|memory)",)]
)
def test_an_annotation_passes_if_one_entry_fits_its_whole_name(enabled: tuple[str, ...]) -> None:
    name = f"{HYPERVISOR}default_memory"
    assert asked({name: "512"}, enable_annotations=enabled).hypervisor.default_memory == 512


@pytest.mark.parametrize(
    "enabled", [(), ("memory",), ("default",), ("default_memor",), ("efault_memory",), ("^default", "memory$"), ("",)]
)
def test_an_entry_that_fits_a_part_of_a_name_lets_nothing_pass(enabled: tuple[str, ...]) -> None:
    said = refused({f"{HYPERVISOR}default_memory": "512"}, enable_annotations=enabled)
    assert said == (
        f'annotation {HYPERVISOR}default_memory is not enabled; add "default_memory" to enable_annotations in {SOURCE}'
    )


def test_upstream_s_default_list_lets_pass_what_it_names_and_no_more() -> None:
    enabled = HypervisorConfig("qemu").enable_annotations
    assert enabled == ("enable_iommu", "kernel_params", "kernel_verity_params")
    passed = {f"{HYPERVISOR}{name}": "" for name in ("kernel_params", "kernel_verity_params")}
    asked({**passed, f"{HYPERVISOR}enable_iommu": "false"}, enable_annotations=enabled)
    assert "is not enabled" in refused({f"{HYPERVISOR}enable_iommu_platform": "false"}, enable_annotations=enabled)


def test_the_one_entry_of_upstream_s_files_that_fits_only_a_part_means_the_name_it_is_for() -> None:
    said = refused({f"{HYPERVISOR}default_gpu_model": "tesla"}, enable_annotations=("gpu_model",))
    assert "default_gpu_model counts only in [hypervisor.remote]" in said


def test_the_gate_is_for_the_hypervisor_alone() -> None:
    result = asked(
        {f"{RUNTIME}create_container_timeout": "7", f"{AGENT}kernel_modules": "a b=1; c"}, enable_annotations=()
    )
    assert result.runtime.create_container_timeout == 7
    assert result.agent.kernel_modules == ("a b=1", "c")


def test_hashes_are_gated_too(tmp_path: Path) -> None:
    for name in (*HASHES, HASH_TYPES[1]):
        assert "is not enabled" in refused({name: "0"}, enable_annotations=("kernel", "image", "initrd", "path"))


# ---- values


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("kernel_params", "a=1", "kernel_params", "a=1"),
        ("default_vcpus", "1.5", "default_vcpus", 1.5),
        ("default_vcpus", "8", "default_vcpus", 8.0),
        ("default_vcpus", "0", "default_vcpus", 0.0),
        ("default_max_vcpus", "4", "default_maxvcpus", 4),
        ("default_maxvcpus", "4", "default_maxvcpus", 4),
        ("default_memory", "256", "default_memory", 256),
        ("memory_slots", "2", "memory_slots", 2),
        ("enable_mem_prealloc", "true", "enable_mem_prealloc", True),
        ("enable_hugepages", "1", "enable_hugepages", True),
        ("reclaim_guest_freed_memory", "T", "reclaim_guest_freed_memory", True),
        ("block_device_aio", "native", "block_device_aio", "native"),
        ("block_device_driver", "virtio-blk-pci", "block_device_driver", "virtio-blk"),
        ("block_device_cache_set", "true", "block_device_cache_set", True),
        ("blk_logical_sector_size", "4096", "block_device_logical_sector_size", 4096),
        ("blk_physical_sector_size", "4096", "block_device_physical_sector_size", 4096),
        ("virtio_fs_cache", "never", "virtio_fs_cache", "never"),
        ("virtio_fs_extra_args", '["--xattr"]', "virtio_fs_extra_args", ("--xattr",)),
        ("machine_type", "pc-q35-7.2", "machine_type", "pc-q35-7.2"),
        ("machine_accelerators", "kernel_irqchip=off,hpet=on", "machine_accelerators", "kernel_irqchip=off,hpet=on"),
        ("cpu_features", "pmu=off,+x2apic,-vmx", "cpu_features", "pmu=off,+x2apic,-vmx"),
        ("entropy_source", "/dev/urandom", "entropy_source", Path("/dev/urandom")),
        ("guest_hook_path", "/usr/share/oci/hooks", "guest_hook_path", Path("/usr/share/oci/hooks")),
    ],
)  # fmt: skip
def test_an_annotation_of_the_hypervisor_becomes_the_key_s_value(name: str, text: str, key: str, value: object) -> None:
    assert getattr(machine(**{name: text}), key) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("default_memory", "255", "must be a number of at least 256, not \"255\""),
        ("default_memory", "2G", 'must be a whole number of at least 96, not "2G"'),
        ("default_memory", "-1", "must be a whole number of at least 96"),
        ("default_memory", "+512", "must be a whole number"),
        ("default_memory", " 512", "must be a whole number"),
        ("default_memory", "512\n", "must be a whole number"),
        ("default_memory", "5_12", "must be a whole number"),
        ("default_memory", "٥١٢", "must be a whole number"),
        ("default_memory", "9" * 5000, "must be a whole number"),
        ("default_vcpus", "8.5", 'must be a number from 0 to 8, not "8.5"'),
        ("default_vcpus", "-1", "must be a number of at least -1"),
        ("default_vcpus", "nan", "must be a number"),
        ("default_vcpus", "1e3", "must be a number"),
        ("enable_hugepages", "yes", 'must be true or false, not "yes"'),
        ("enable_hugepages", "", "must be true or false"),
        ("indep_iothreads", "0", "must be a number from 1 to 50"),
        ("block_device_aio", "psync", 'must be one of "io_uring", "native", "threads", not "psync"'),
        ("blk_logical_sector_size", "1000", "must be a whole number that is 0 or a power of two from 512 to 65536"),
        ("virtio_fs_extra_args", "--xattr", "must be a list of strings"),
        ("virtio_fs_extra_args", "[" * 9999, "must be a list of strings"),
        ("virtio_fs_extra_args", "[1]", "must be a list of strings"),
        ("shared_fs", "virtio-9p", 'must be one of "virtio-fs", "none"'),
        ("machine_type", "q35\n", "without control characters"),
        ("machine_accelerators", "dumpdtb=/etc/passwd", "must be a string of letters, digits and . , = + : - _"),
        ("cpu_features", "pmu=off -drive x", "must be a string of letters, digits"),
        ("kernel_params", "a\x00b", "must be a string without control characters"),
        ("kernel_params", "a\nb", "must be a string without control characters"),
        ("kernel_params", 'a="b', "must be a string with quotation marks in pairs"),
        ("guest_hook_path", "hooks", "must be an absolute path"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_form_is_named_with_the_right_one(name: str, text: str, said: str) -> None:
    error = refused({HYPERVISOR + name: text})
    assert error.startswith(f"annotation {HYPERVISOR}{name} must be ")
    assert said in error


def test_the_remote_hypervisor_is_as_large_as_its_cloud_makes_it() -> None:
    annotations = {f"{HYPERVISOR}default_vcpus": "96", f"{HYPERVISOR}default_memory": "100"}
    hypervisor = asked(annotations, name="remote").hypervisor
    assert (hypervisor.default_vcpus, hypervisor.default_memory) == (96, 100)


def test_kernel_parameters_take_the_place_of_those_of_their_name_and_come_after_the_others() -> None:
    base = 'a=1 b c="x y" panic=1'
    said = asked({f"{HYPERVISOR}kernel_params": 'panic=5 c="p q" new'}, kernel_params=base).hypervisor.kernel_params
    assert said == 'a=1 b panic=5 c="p q" new'
    assert asked({f"{HYPERVISOR}kernel_params": ""}, kernel_params="a").hypervisor.kernel_params == "a"


def test_arguments_for_virtiofsd_are_added() -> None:
    arguments = {f"{HYPERVISOR}virtio_fs_extra_args": '["--thread-pool-size=4", "--posix-acl"]'}
    told = asked(arguments, virtio_fs_extra_args=("--xattr",)).hypervisor.virtio_fs_extra_args
    assert told == ("--xattr", "--thread-pool-size=4", "--posix-acl")


@pytest.mark.parametrize(
    "argument",
    [
        "--shared-dir=/", "--shared-dir", "-o", "source=/", "--sandbox=none", "--seccomp=none", "--fd=3",
        "--socket-path=/x",
        "--cache=auto,source=/", "--syslog", "/", "", "--xattr\n", "--xattr ", "--thread-pool-size=1 --sandbox=none",
        "--modcaps=+sys_admin", "--translate-uid=map:0:0:1", "-osource=/", "--XATTR",
    ],
)  # fmt: skip
def test_no_argument_that_leads_virtiofsd_elsewhere_is_passed_on(argument: str) -> None:
    said = refused({f"{HYPERVISOR}virtio_fs_extra_args": json.dumps([argument])})
    assert "may tune virtiofsd, as --thread-pool-size=4 does, and not with" in said


def test_annotations_of_runtime_and_agent_become_their_keys_values() -> None:
    result = asked(
        {
            f"{RUNTIME}disable_guest_seccomp": "false",
            f"{RUNTIME}experimental_force_guest_pull": "true",
            f"{RUNTIME}create_container_timeout": "120",
            f"{AGENT}kernel_modules": "e1000e InterruptThrottleRate=3000,3000 EEE=1;i915",
            f"{AGENT}container_pipe_size": "4096",
            f"{AGENT}cdh_api_timeout_ms": "60000",
        }
    )
    assert (result.runtime.disable_guest_seccomp, result.runtime.create_container_timeout) == (False, 120)
    assert result.runtime.experimental_force_guest_pull
    assert result.agent.kernel_modules == ("e1000e InterruptThrottleRate=3000,3000 EEE=1", "i915")
    assert (result.agent.container_pipe_size, result.agent.cdh_api_timeout) == (4096, 60)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{AGENT}cdh_api_timeout_ms", "1500"),
        (f"{AGENT}kernel_modules", "-r x"),
        (f"{AGENT}kernel_modules", "a;../b"),
        (f"{RUNTIME}create_container_timeout", "0"),
        (f"{RUNTIME}internetworking_model", "bridge"),
    ],
)
def test_a_wrong_value_for_runtime_or_agent_is_refused(name: str, text: str) -> None:
    assert refused({name: text}).startswith(f"annotation {name} must be ")


def test_every_annotation_is_read_or_refused_and_never_passed_over() -> None:
    any_will_do = {key for known in (*PENDING.values(), *NOT_HONOURED.values()) for key in known if known[key] is ANY}
    for name in [name for name, rule in RULES.items() if rule.key not in any_will_do]:
        assert refused({name: "\x00 no value at all"}).startswith(f"annotation {name} ")


# ---- what is not honoured yet


def test_a_pending_key_is_refused_by_the_annotation_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PENDING, "hypervisor", {"enable_hugepages": ()})
    monkeypatch.setitem(PENDING, "runtime", {"enable_vcpus_pinning": ()})
    name = f"{HYPERVISOR}enable_hugepages"
    assert refused({name: "true"}) == f'annotation {name} = "true" is not honoured yet; accepted so far: false'
    assert asked({name: "false"}) == configuration()
    for name in ("io.katacontainers.enable_vcpus_pinning", f"{RUNTIME}enable_vcpus_pinning"):
        assert f'annotation {name} = "true" is not honoured yet' in refused({name: "true"})
    monkeypatch.setitem(PENDING, "runtime", {})
    for name in ("io.katacontainers.enable_vcpus_pinning", f"{RUNTIME}enable_vcpus_pinning"):
        assert asked({name: "true"}).runtime.enable_vcpus_pinning


@pytest.mark.parametrize(
    ("name", "accepted", "not_yet"),
    [
        (f"{HYPERVISOR}enable_guest_swap", "0", "1"),
        (f"{HYPERVISOR}enable_iommu_platform", "false", "true"),
        (f"{HYPERVISOR}kernel_verity_params", "", "root_hash=1"),
        (f"{HYPERVISOR}numa_mapping", "", "0 1"),
        (f"{HYPERVISOR}msize_9p", "4096", None),
        (f"{RUNTIME}enable_pprof", "false", "true"),
        (f"{HYPERVISOR}network_queues", None, "2"),
    ],
)
def test_a_key_that_is_not_ours_yet_is_refused_unless_it_changes_nothing(
    name: str, accepted: str | None, not_yet: str | None
) -> None:
    if accepted is not None:
        assert asked({name: accepted}) == configuration()
    if not_yet is not None:
        assert refused({name: not_yet}).startswith(f"annotation {name} ")
        assert "is not honoured yet" in refused({name: not_yet})


# ---- contradictions


def test_what_contradicts_the_configuration_is_refused_with_its_file() -> None:
    said = refused({f"{HYPERVISOR}default_memory": "512"}, default_memory=256, default_maxmemory=300)
    assert said == (
        "annotations of the pod: default_maxmemory 300 is below default_memory 512, in [hypervisor.qemu]; "
        f"the pod's annotations are laid over {SOURCE}"
    )


def test_one_vfio_annotation_sets_the_other_key_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PENDING, "hypervisor", {})
    hot, cold = f"{HYPERVISOR}hot_plug_vfio", f"{HYPERVISOR}cold_plug_vfio"
    hypervisor = asked({hot: "root-port"}, cold_plug_vfio="bridge-port").hypervisor
    assert (hypervisor.hot_plug_vfio, hypervisor.cold_plug_vfio) == ("root-port", "no-port")
    hypervisor = asked({hot: "no-port"}, cold_plug_vfio="bridge-port").hypervisor
    assert (hypervisor.hot_plug_vfio, hypervisor.cold_plug_vfio) == ("no-port", "bridge-port")
    assert "exclude each other" in refused({hot: "root-port", cold: "root-port"})


# ---- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("key", ["kernel", "image", "initrd", "firmware"])
def test_what_is_booted_must_be_a_file_and_counts_as_what_it_is(file: Path, key: str) -> None:
    link = file.parent / "link"
    link.symlink_to(file)
    assert getattr(machine(**{key: str(link)}), key) == file
    name = HYPERVISOR + key
    assert (
        refused({name: f"{file}x"})
        == f"annotation {name} names {file}x, which cannot be used: No such file or directory"
    )
    assert "is neither a file nor a device" in refused({name: str(file.parent)})
    assert "shortest form" in refused({name: f"{file.parent}/../{file.parent.name}/file"})
    assert "must be an absolute path" in refused({name: "file"})


def test_an_image_takes_the_place_of_an_initrd_and_the_other_way_round(file: Path) -> None:
    image, initrd = f"{HYPERVISOR}image", f"{HYPERVISOR}initrd"
    hypervisor = asked({image: str(file)}, initrd=Path("/i")).hypervisor
    assert (hypervisor.image, hypervisor.initrd) == (file, None)
    assert asked({initrd: str(file)}).hypervisor.initrd == file
    assert "a guest has one root file system" in refused({image: str(file), initrd: str(file)})


@pytest.mark.parametrize(
    ("key", "listing"),
    [
        ("path", "valid_hypervisor_paths"),
        ("virtio_fs_daemon", "valid_virtio_fs_daemon_paths"),
        ("entropy_source", "valid_entropy_sources"),
    ],
)
def test_a_file_of_the_host_must_be_listed(file: Path, key: str, listing: str) -> None:
    name = HYPERVISOR + key
    assert getattr(asked({name: str(file)}, **{listing: (f"{file.parent}/f*",)}).hypervisor, key) == file
    assert refused({name: str(file)}, **{listing: ("/usr/bin/*",)}) == (
        f"annotation {name} names {file}, which is not listed; {listing} in {SOURCE} lists what pods may name"
    )
    link = file.parent / "fake"
    link.symlink_to("/etc/passwd")
    said = refused({name: str(link)}, **{listing: (f"{file.parent}/f*",)})
    assert "leads to /etc/passwd, which is not listed" in said


def test_no_random_numbers_at_all_must_be_listed_like_a_source_of_them() -> None:
    name = f"{HYPERVISOR}entropy_source"
    base = {"entropy_source": Path("/dev/urandom")}
    assert asked({name: ""}, **base).hypervisor.entropy_source is None
    assert 'may not be ""; add "" to valid_entropy_sources' in refused({name: ""}, valid_entropy_sources=(), **base)


# ---- digests


def test_a_digest_is_for_the_file_that_will_be_used(file: Path) -> None:
    digest = "Ab" * 64
    result = asked({f"{HYPERVISOR}kernel": str(file), f"{HYPERVISOR}kernel_hash": digest})
    [asset] = result.assets
    assert (asset.annotation, asset.path) == (f"{HYPERVISOR}kernel_hash", file)
    assert (asset.algorithm, asset.digest) == ("sha512", digest.lower())
    [asset] = asked({f"{HYPERVISOR}image_hash": digest}, image=Path("/i")).assets
    assert asset.path == Path("/i")


@pytest.mark.parametrize("name", [f"{HYPERVISOR}hypervisor_hash", f"{HYPERVISOR}path_hash"])
def test_the_hypervisor_s_own_digest_has_two_names(name: str) -> None:
    [asset] = asked({name: "0" * 128}, path=Path("/qemu")).assets
    assert asset.path == Path("/qemu")


@pytest.mark.parametrize("kind", HASH_TYPES)
def test_another_algorithm_can_be_named(kind: str) -> None:
    name = f"{HYPERVISOR}kernel_hash"
    [asset] = asked({name: "0" * 64, kind: "sha256"}).assets
    assert asset.algorithm == "sha256"
    assert "must be a sha256 of 64 hexadecimal digits" in refused({name: "0" * 128, kind: "sha256"})
    assert 'must be one of sha512, sha384, sha256, not "md5"' in refused({name: "0" * 32, kind: "md5"})


@pytest.mark.parametrize("digest", ["", "0" * 127, "0" * 129, "g" * 128, "0" * 128 + "\n", "٠" * 128])
def test_a_digest_of_another_form_is_refused(digest: str) -> None:
    assert "must be a sha512 of 128 hexadecimal digits" in refused({f"{HYPERVISOR}kernel_hash": digest})


def test_a_digest_for_a_file_that_is_not_used_is_refused() -> None:
    digest = {f"{HYPERVISOR}{key}_hash": "0" * 128 for key in ("image",)}
    assert "vouches for a file that is not used: there is no image" in refused(digest, initrd=Path("/i"))
    for key in ("initrd", "firmware"):
        assert f"there is no {key}" in refused({f"{HYPERVISOR}{key}_hash": "0" * 128})


def test_algorithms_that_differ_are_refused() -> None:
    assert "differ" in refused({HASH_TYPES[0]: "sha256", HASH_TYPES[1]: "sha512"})


# ---- whatever comes


@given(st.dictionaries(st.sampled_from([*RULES, *HASHES, *HASH_TYPES]), st.text(), min_size=1, max_size=4))
def test_whatever_the_text_the_outcome_is_a_configuration_or_an_error(annotations: dict[str, str]) -> None:
    base = configuration()
    try:
        result = annotated(base, annotations)
    except ConfigurationError:
        return
    assert replace(result, hypervisor=base.hypervisor, agent=base.agent, runtime=base.runtime, assets=()) == base


def test_a_policy_is_rego_in_base64() -> None:
    text = base64.b64encode("package agent_policy  # größe".encode()).decode()
    assert asked({f"{AGENT}policy": f"{text[:8]}\n{text[8:]}\r\n"}).policy == "package agent_policy  # größe"
    assert asked({}).policy == ""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is empty"),
        (base64.b64encode(b" \n").decode(), "is empty"),
        ("package agent_policy", "must be Rego text in base64"),
        ("cGFja2FnZQ", "must be Rego text in base64"),
        (base64.b64encode(b"\xff").decode(), "must be Rego text in base64"),
        ("A" * ((4 << 20) + 4), "more than a policy of 3 MiB needs"),
    ],
)
def test_a_policy_that_is_none_is_refused(text: str, cause: str) -> None:
    message = refused({f"{AGENT}policy": text})
    assert message.startswith(f"annotation {AGENT}policy ")
    assert cause in message
