from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_protos import agent_pb2
from kata_py.config.model import AgentConfig, RuntimeConfig
from kata_py.hypervisor.api import Accelerator, AgentChannel, SharedDirectory
from kata_py.sandbox.container_plan import guest_process
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.pod import Role
from kata_py.sandbox.sandbox_plan import SandboxPlan, plan_sandbox, resolv_conf
from kata_py.sandbox.size import Host
from tests.unit.sandbox.plans import (
    ALL,
    HOST,
    SHARE,
    bind,
    configuration,
    container,
    namespaced,
    sandbox,
    spec,
)


def test_the_machine_is_what_the_configuration_says() -> None:
    plan = sandbox(
        spec(),
        kernel=Path("/k"), initramfs=Path("/i"), image=Path("/r"), kernel_params="quiet  panic=1",
        accelerator="tcg", agent_channel="virtio-serial", machine_type="q35", enable_debug=True,
    )  # fmt: skip
    vm = plan.vm
    assert (vm.sandbox_id, vm.directory) == ("pod", Path("/run/vc/vm/pod"))
    assert (vm.boot.kernel, vm.boot.initramfs, vm.boot.image) == (Path("/k"), Path("/i"), Path("/r"))
    assert vm.boot.parameters == ("agent.log_vport=1025", "quiet", "panic=1")
    assert (vm.agent_log, vm.debug_console) == (True, False)
    assert (vm.accelerator, vm.agent_channel) == (Accelerator.TCG, AgentChannel.VIRTIO_SERIAL)
    assert (vm.machine, vm.debug) == ("q35", True)
    assert (plan.dial_timeout, plan.create_timeout) == (7, 9)
    assert vm.devices == (SharedDirectory("kataShared", Path("/run/kata-containers/shared/sandboxes/pod/shared")),)


def test_an_agent_that_talks_is_told_by_the_kernels_line() -> None:
    talking = replace(configuration(), agent=AgentConfig(enable_debug=True))
    assert plan_sandbox(talking, namespaced(*ALL), sandbox_id="pod", host=HOST).vm.boot.parameters == (
        "agent.log=debug",
    )


def test_what_the_agent_is_told_goes_before_the_user_s_own_parameters() -> None:
    told = AgentConfig(
        enable_debug=True, debug_console_enabled=True, container_pipe_size=4096, cdh_api_timeout=60,
        launch_process_timeout=15,
    )  # fmt: skip
    plan = plan_sandbox(
        replace(configuration(kernel_params="agent.log=info"), agent=told),
        namespaced(*ALL),
        sandbox_id="pod",
        host=HOST,
    )
    assert plan.vm.boot.parameters == (
        "agent.log=debug", "agent.debug_console", "agent.debug_console_vport=1026", "agent.container_pipe_size=4096",
        "agent.cdh_api_timeout=60", "agent.launch_process_timeout=15", "agent.log=info",
    )  # fmt: skip
    assert sandbox(spec()).vm.boot.parameters == ()


def test_an_initrd_is_the_whole_root() -> None:
    boot = sandbox(spec(), initrd=Path("/i")).vm.boot
    assert (boot.initramfs, boot.image) == (Path("/i"), None)


def test_the_agent_is_asked_for_modules_and_hooks() -> None:
    wanting = replace(
        configuration(guest_hook_path=Path("/usr/share/oci/hooks")),
        agent=AgentConfig(kernel_modules=("e1000e InterruptThrottleRate=3000,3000 EEE=1", "i915")),
    )
    told = plan_sandbox(wanting, namespaced(*ALL), sandbox_id="pod", host=HOST).guest
    assert told.guest_hook_path == "/usr/share/oci/hooks"
    assert [(module.name, list(module.parameters)) for module in told.kernel_modules] == [
        ("e1000e", ["InterruptThrottleRate=3000,3000", "EEE=1"]), ("i915", []),
    ]  # fmt: skip


def test_the_drivers_of_devices_that_not_every_machine_has_are_asked_for_as_well() -> None:
    told = sandbox(spec(), entropy_source=Path("/dev/urandom"), reclaim_guest_freed_memory=True).guest
    assert [module.name for module in told.kernel_modules] == ["virtio_rng", "virtio_balloon"]


def test_memory_of_huge_pages_is_whole_huge_pages() -> None:
    assert sandbox(spec(), default_memory=513, enable_hugepages=True).vm.memory.size == 512
    assert sandbox(spec(), default_memory=513).vm.memory.size == 513


def test_the_guest_is_told_host_name_dns_and_share() -> None:
    told = sandbox(spec(hostname="h" * 70)).guest
    assert told == agent_pb2.CreateSandboxRequest(
        sandbox_id="pod",
        hostname="h" * 64,
        dns=["nameserver 1.1.1.1"],
        storages=[
            agent_pb2.Storage(driver="virtio-fs", source="kataShared", fstype="virtiofs", mount_point=f"{SHARE}/")
        ],
    )


def test_files_go_where_they_are_told() -> None:
    paths = HostPaths(machines=Path("/a"), shares=Path("/b"))
    vm = plan_sandbox(configuration(), namespaced(*ALL), sandbox_id="pod", host=HOST, paths=paths).vm
    assert vm.directory == Path("/a/pod")
    assert vm.devices == (SharedDirectory("kataShared", Path("/b/pod/shared")),)


@pytest.mark.parametrize(
    ("configured", "cpu", "count", "maximum"),
    [
        ({}, {}, 1, 8),
        ({"default_vcpus": 0}, {}, 1, 8),
        ({"default_vcpus": -1}, {}, 8, 8),
        ({"default_vcpus": 99}, {}, 8, 8),
        ({"default_vcpus": 1.5}, {}, 2, 8),
        ({}, {"quota": 150_000, "period": 100_000}, 3, 8),
        ({"default_vcpus": 0.5}, {"quota": 50_000, "period": 100_000}, 1, 8),
        ({}, {"quota": -1, "period": 100_000}, 1, 8),
        ({}, {"quota": 100_000}, 1, 8),
        ({"default_maxvcpus": 2}, {"quota": 900_000, "period": 100_000}, 2, 2),
        ({"default_maxvcpus": 99}, {"quota": 9_900_000, "period": 100_000}, 8, 8),
        ({"default_vcpus": 4, "default_maxvcpus": 2}, {}, 4, 4),
    ],
)
def test_processors_are_the_default_and_what_the_container_may_use(
    configured: dict[str, Any], cpu: dict[str, int], count: int, maximum: int
) -> None:
    cpus = sandbox(spec(linux={"resources": {"cpu": cpu}}), **configured).vm.cpus
    assert (cpus.count, cpus.maximum) == (count, maximum)


@pytest.mark.parametrize(
    ("configured", "limit", "size", "maximum"),
    [
        ({}, None, 2048, 16384),
        ({}, 512 << 20, 2560, 16384),
        ({}, -1, 2048, 16384),
        ({}, 1 << 62, 16384, 16384),
        ({"default_maxmemory": 4096}, 8 << 30, 4096, 4096),
        ({"default_memory": 1024, "default_maxmemory": 512}, None, 1024, 1024),
    ],
)
def test_memory_is_the_default_and_what_the_container_may_use(
    configured: dict[str, Any], limit: int | None, size: int, maximum: int
) -> None:
    memory = {} if limit is None else {"limit": limit}
    planned = sandbox(spec(linux={"resources": {"memory": memory}}), **configured).vm.memory
    assert (planned.size, planned.maximum, planned.slots) == (size, maximum, 10)


def test_files_that_all_guests_see_are_read_only_unless_told_otherwise() -> None:
    def shown(*paths: str) -> SandboxPlan:
        told = replace(configuration(), runtime=RuntimeConfig(sandbox_bind_mounts=paths))
        return plan_sandbox(told, namespaced(*ALL), sandbox_id="pod", host=HOST)

    assert [
        (each.source, each.name, each.read_only) for each in shown("/a/one", "/two:ro", "/three:rw").bind_mounts
    ] == [
        (Path("/a/one"), "sandbox-mounts/one", True),
        (Path("/two"), "sandbox-mounts/two", True),
        (Path("/three"), "sandbox-mounts/three", False),
    ]
    with pytest.raises(InvalidArgument, match="two of the paths end in one"):
        shown("/a/one", "/b/one:rw")


@pytest.mark.parametrize(("missing", "field"), [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")])
def test_a_pod_in_a_namespace_of_the_host_is_refused_with_the_fields_name(missing: str, field: str) -> None:
    described = namespaced(*(kind for kind in ALL if kind != missing))
    with pytest.raises(InvalidArgument, match=f"^{field} is not possible: .* {missing} namespace"):
        sandbox(described, role=Role.SANDBOX)
    container(described, role=Role.CONTAINER)  # it goes where its sandbox is


@pytest.mark.parametrize(
    ("told", "refused"), [('{"ipc":2}', True), ('{"ipc":1,"pid":1}', False), ("[]", False), ("{", False)]
)
def test_crios_word_for_the_hosts_namespace_counts_where_the_spec_is_silent(told: str, refused: bool) -> None:
    described = namespaced(*ALL)
    described["annotations"] = {"io.kubernetes.cri-o.NamespaceOptions": told}
    with pytest.raises(InvalidArgument, match="hostIPC") if refused else nullcontext():
        sandbox(described, role=Role.SANDBOX)


def test_a_container_alone_is_refused_the_hosts_network_only() -> None:
    sandbox(namespaced("network"))
    with pytest.raises(InvalidArgument, match="hostNetwork"):
        sandbox(namespaced("pid", "ipc", "uts", "mount"))


def test_users_of_its_own_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="hostUsers: false"):
        sandbox(namespaced(*ALL, "user"), role=Role.SANDBOX)


def test_planning_changes_nothing_of_what_it_is_given() -> None:
    given = spec(
        mounts=[bind("/data", "/host/data")],
        linux={
            "seccomp": {"defaultAction": "x"},
            "resources": {"cpu": {"cpus": "0"}},
            "namespaces": [{"type": "network"}, {"type": "time"}],
        },
    )
    before = repr(given)
    container(given)
    sandbox(given)
    guest_process(given["process"], terminal=True)
    assert repr(given) == before


def test_the_pods_resolv_conf_is_found() -> None:
    assert resolv_conf(spec(mounts=[bind("/etc/resolv.conf", "/run/x/resolv.conf")])) == Path("/run/x/resolv.conf")
    assert resolv_conf(spec()) is None


def test_this_host_has_processors_and_memory() -> None:
    host = Host.current()
    assert host.cpus >= 1
    assert host.memory > 64
