from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kata_py.config.model import Configuration, HypervisorConfig, RuntimeConfig
from kata_py.config.size import SandboxSize
from kata_py.hypervisor.api import Memory, Size, Vcpus
from kata_py.oci.spec import LinuxResources
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.size import Host, Sizing, merged

HOST = Host(cpus=8, memory=16384)
CONFIGURATION = Configuration(HypervisorConfig("qemu", cpu_features=""), Path("/x"))
NOTHING = SandboxSize()


def sizing(*, announced: SandboxSize = NOTHING, host: Host = HOST, **hypervisor: Any) -> Sizing:
    configuration = replace(CONFIGURATION, hypervisor=replace(CONFIGURATION.hypervisor, **hypervisor))
    return Sizing.of(configuration, host, announced)


def cpu(quota: int, period: int = 100_000, **more: Any) -> LinuxResources:
    return {"cpu": cast(Any, {"quota": quota, "period": period, **more})}


def memory(mebibytes: float) -> LinuxResources:
    return {"memory": {"limit": int(mebibytes * (1 << 20))}}


@pytest.mark.parametrize(
    ("containers", "cpus"),
    [
        ([], 1),
        ([cpu(-1)], 1),
        ([cpu(50_000), cpu(50_000)], 2),
        ([cpu(10_000)] * 10, 2),
        ([cpu(33_334, 100_002)] * 3, 2),
        ([cpu(10_001), cpu(50_000), cpu(40_000)], 3),
        ([cpu(150_000), cpu(-1), {}], 3),
        ([cpu(200_000, 50_000)], 5),
        ([cpu(100_000, 0)], 1),
        ([{"cpu": {"cpus": "0-2"}}], 4),
        ([{"cpu": {"cpus": "0-1"}}, {"cpu": {"cpus": "1,3"}}], 4),
        ([cpu(100_000, cpus="0-5")], 2),
        ([{"cpu": {"cpus": "0-1"}}, cpu(100_000)], 2),
    ],
)
def test_processors_are_added_up_and_rounded_once(containers: list[LinuxResources], cpus: int) -> None:
    assert sizing().demand(containers).size.cpus == cpus


@pytest.mark.parametrize(
    ("containers", "mebibytes"),
    [
        ([], 2048),
        ([memory(512), memory(256)], 2816),
        ([memory(0.5), memory(0.5)], 2049),
        ([memory(0.75)], 2048),
        ([{"memory": {"limit": -1}}], 2048),
        ([{"hugepageLimits": [{"pageSize": "2MB", "limit": 64 << 20}, {"pageSize": "1GB", "limit": 0}]}], 2112),
    ],
)
def test_memory_is_added_up_with_huge_pages(containers: list[LinuxResources], mebibytes: int) -> None:
    assert sizing().demand(containers).size.memory == mebibytes


@pytest.mark.parametrize(
    ("hypervisor", "containers", "size", "refused"),
    [
        ({}, [cpu(800_000)], Size(8, 2048), "9 vCPUs, of which it gets 8 (default_maxvcpus)"),
        ({"default_maxvcpus": 2}, [cpu(200_000)], Size(2, 2048), "3 vCPUs, of which it gets 2 (default_maxvcpus)"),
        ({}, [memory(15000)], Size(1, 16384), "17048 MiB, of which it gets 16384 (default_maxmemory)"),
        (
            {"default_maxvcpus": 1, "default_maxmemory": 4096},
            [cpu(50_000), memory(4096)],
            Size(1, 4096),
            "2 vCPUs, of which it gets 1 (default_maxvcpus) and 6144 MiB, of which it gets 4096 (default_maxmemory)",
        ),
        ({"enable_hugepages": True}, [memory(1)], Size(1, 2048), ""),
    ],
)
def test_what_is_above_the_limits_is_told(
    hypervisor: dict[str, Any], containers: list[LinuxResources], size: Size, refused: str
) -> None:
    demand = sizing(**hypervisor).demand(containers)
    assert (demand.size, demand.refused) == (size, refused)


@pytest.mark.parametrize(("machine", "most"), [("", 240), ("q35", 240), ("s390-ccw-virtio", 248)])
def test_no_machine_type_takes_any_number_of_processors(machine: str, most: int) -> None:
    assert sizing(host=Host(512, 16384), machine_type=machine).most.cpus == most


def test_a_pod_of_which_the_size_was_announced_has_it_from_the_start() -> None:
    measured = sizing(announced=SandboxSize(vcpus=2.5, memory=1024))
    assert measured.demand([]).size == Size(4, 3072)
    assert measured.demand([cpu(100_000), memory(512)]).size == Size(4, 3072)
    assert measured.demand([cpu(400_000), memory(2048)]).size == Size(5, 4096)
    assert measured.boot([], CONFIGURATION) == (Vcpus(4, 8), Memory(3072, 16384, 10))


def test_a_machine_of_fixed_size_cannot_grow() -> None:
    static = replace(CONFIGURATION, runtime=RuntimeConfig(static_sandbox_resource_mgmt=True))
    measured = Sizing.of(static, HOST, SandboxSize(vcpus=2, memory=512))
    assert measured.fixed
    assert measured.boot([], static) == (Vcpus(3, 3), Memory(2560, 2560, 0))


def test_virtio_mem_is_asked_for_as_configured() -> None:
    wanting = replace(CONFIGURATION, hypervisor=replace(CONFIGURATION.hypervisor, enable_virtio_mem=True))
    assert Sizing.of(wanting, HOST, NOTHING).boot([], wanting)[1].virtio_mem


def test_a_set_of_processors_that_is_none_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.resources\.cpu\.cpus: 'x-y' is no list"):
        sizing().demand([{"cpu": {"cpus": "x-y"}}])


def test_an_update_keeps_what_it_does_not_name() -> None:
    old: LinuxResources = {"cpu": {"quota": 1, "period": 2, "cpus": "0"}, "memory": {"limit": 5, "swap": 6}}
    assert merged(old, {"cpu": {"quota": 3}}) == {
        "cpu": {"quota": 3, "period": 2, "cpus": "0"}, "memory": {"limit": 5, "swap": 6},
    }  # fmt: skip
    assert merged(old, {"memory": {"limit": 7}})["memory"] == {"limit": 7, "swap": 6}
    assert merged({}, {"cpu": {"quota": 3}}) == {"cpu": {"quota": 3}}
