"""The size of a pod, as containerd and CRI-O tell it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.config.errors import ConfigurationError
from kata_py.config.size import SandboxSize

CONTAINERD = "io.kubernetes.cri.sandbox-"
CRIO = "io.kubernetes.cri-o.PodLinux"


def of_containerd(**values: object) -> SandboxSize:
    return SandboxSize.of({CONTAINERD + name.replace("_", "-"): str(value) for name, value in values.items()})


def test_a_pod_of_which_nothing_is_told_has_no_size() -> None:
    assert SandboxSize.of({}) == SandboxSize()
    assert SandboxSize.of({"io.kubernetes.cri.sandbox-id": "x"}) == SandboxSize()


def test_containerd_tells_quota_period_shares_and_memory() -> None:
    size = of_containerd(cpu_period=100_000, cpu_quota=150_000, cpu_shares=1024, memory=300 << 20)
    assert size == SandboxSize(vcpus=1.5, memory=300)


@pytest.mark.parametrize(
    ("values", "vcpus"),
    [
        ({"cpu_quota": -1, "cpu_shares": 2048, "cpu_period": 100_000}, 2),
        ({"cpu_quota": -1, "cpu_shares": 2049}, 3),
        ({"cpu_quota": -1}, 0),
        ({"cpu_quota": 0, "cpu_shares": 2048, "cpu_period": 100_000}, 0),
        ({"cpu_shares": 2048}, 0),
        ({"cpu_quota": 50_000, "cpu_period": 0}, 0),
        ({"cpu_quota": 50_000}, 0),
    ],
)
def test_shares_count_only_where_there_is_no_quota(values: dict[str, int], vcpus: float) -> None:
    assert of_containerd(**values).vcpus == vcpus


def test_memory_is_in_mebibytes_and_rounded_down() -> None:
    assert of_containerd(memory=(2 << 20) - 1).memory == 1
    assert of_containerd(memory=0).memory == of_containerd(memory=-1).memory == 0


@pytest.mark.parametrize(
    ("resources", "overhead"),
    [
        (f"{CRIO}Resources", f"{CRIO}Overhead"),
        ("pod-linux-resources.crio.io", "pod-linux-overhead.crio.io"),
    ],
)
def test_cri_o_tells_resources_and_overhead_as_json(resources: str, overhead: str) -> None:
    told = {
        resources: json.dumps({"cpu_period": 100_000, "cpu_quota": 200_000, "memory_limit_in_bytes": 1 << 30}),
        overhead: json.dumps({"cpu_period": 100_000, "cpu_quota": 25_000, "memory_limit_in_bytes": 350 << 20}),
    }
    assert SandboxSize.of(told) == SandboxSize(2.0, 1024, 0.25, 350)


def test_cri_o_tells_null_where_the_kubelet_gave_nothing() -> None:
    assert SandboxSize.of({f"{CRIO}Resources": "null", f"{CRIO}Overhead": "{}"}) == SandboxSize()


@pytest.mark.parametrize("name", ["cpu-period", "cpu-quota", "cpu-shares", "memory"])
@pytest.mark.parametrize("text", ["much", "1.5", "0x10", str(1 << 64), "9" * 5000])
def test_what_is_no_number_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f'{CONTAINERD}{name} must be a whole number, not "{text[:40]}"'):
        SandboxSize.of({CONTAINERD + name: text})


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '"x"', '{"cpu_quota": "1"}', '{"cpu_quota": true}', "[" * 9999])
def test_what_is_no_json_of_that_form_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{CRIO}Resources must be the CRI's LinuxContainerResources as JSON"):
        SandboxSize.of({f"{CRIO}Resources": text})


@given(
    st.dictionaries(st.sampled_from([f"{CONTAINERD}cpu-quota", f"{CONTAINERD}memory", f"{CRIO}Overhead"]), st.text())
)
def test_whatever_the_text_the_outcome_is_a_size_or_an_error(annotations: dict[str, str]) -> None:
    try:
        assert SandboxSize.of(annotations).memory >= 0
    except ConfigurationError:
        return
