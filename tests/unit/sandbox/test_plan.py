from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kata_protos import agent_pb2
from kata_py.config.model import AgentConfig, Configuration, HypervisorConfig, RuntimeConfig
from kata_py.hypervisor.api import Accelerator, AgentChannel, SharedDirectory
from kata_py.oci.spec import Spec
from kata_py.oci.wire import from_agent
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.plan import (
    ContainerPlan,
    SandboxPlan,
    guest_process,
    guest_resources,
    plan_container,
    plan_sandbox,
    resolv_conf,
)
from kata_py.sandbox.pod import Role
from kata_py.sandbox.size import Host
from kata_py.sandbox.stdio import StdioSpec
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.source import Kind, Source, Sources

HOST = Host(cpus=8, memory=16384)
BUNDLE = Path("/run/bundle")
ALL = ("pid", "ipc", "uts", "mount", "network")
SHARE = "/run/kata-containers/shared/containers"


def configuration(**hypervisor: Any) -> Configuration:
    return Configuration(
        hypervisor=HypervisorConfig(name="qemu", **hypervisor),
        source=Path("/etc/kata-containers/configuration.toml"),
        agent=AgentConfig(dial_timeout=7),
        runtime=RuntimeConfig(create_container_timeout=9),
    )


def spec(**members: Any) -> Spec:
    process = {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"}
    return cast(Spec, {"ociVersion": "1.1.0", "process": process, "root": {"path": "rootfs"}, **members})


def namespaced(*kinds: str, **linux: Any) -> Spec:
    """A spec with namespaces of these kinds, and whatever else its `linux` says."""
    return spec(linux={"namespaces": [{"type": kind} for kind in kinds], **linux})


def sandbox(spec: Spec, *, role: Role = Role.SINGLE, **hypervisor: Any) -> SandboxPlan:
    linux = {"namespaces": [{"type": kind} for kind in ALL], **spec.get("linux", {})}
    return plan_sandbox(
        configuration(**hypervisor), cast(Spec, {**spec, "linux": linux}), sandbox_id="pod", role=role,
        dns=["nameserver 1.1.1.1"], host=HOST,
    )  # fmt: skip


def container(spec: Spec, **fields: Any) -> ContainerPlan:
    fields.setdefault("stdio", StdioSpec())
    return plan_container(configuration(), spec, container_id="c1", bundle=BUNDLE, **fields)


def guest(spec: Spec, **fields: Any) -> dict[str, Any]:
    return cast(dict[str, Any], from_agent(container(spec, **fields).guest.OCI))


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["rbind", *options]}


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


def test_the_rootfs_is_what_the_manager_gave_or_where_the_spec_says() -> None:
    overlay = RootfsMount("overlay", "overlay", ("lowerdir=/a",))
    assert container(spec(), rootfs=[overlay]).rootfs == [overlay]
    assert container(spec()).rootfs == BUNDLE / "rootfs"
    assert container(spec(root={"path": "/var/lib/x"})).rootfs == Path("/var/lib/x")


def test_the_guest_finds_its_rootfs_in_the_share() -> None:
    assert guest(spec(root={"path": "rootfs", "readonly": True}))["root"] == {
        "path": f"{SHARE}/c1/rootfs", "readonly": True,
    }  # fmt: skip


DISK_ROOT = [RootfsMount("ext4", "/dev/loop7")]
DISK_SOURCES = Sources({Path("/dev/loop7"): Source(Path("/dev/loop7"), Kind.BLOCK_DEVICE)})


def rooted_on_a_disk(**hypervisor: Any) -> ContainerPlan:
    return plan_container(
        configuration(**hypervisor), spec(), container_id="c1", bundle=BUNDLE, stdio=StdioSpec(), rootfs=DISK_ROOT,
        sources=DISK_SOURCES,
    )  # fmt: skip


def test_a_rootfs_on_a_disk_is_the_guests_to_mount_where_that_is_allowed() -> None:
    told = rooted_on_a_disk(disable_block_device_use=False)
    assert told.rootfs is None
    [use] = told.disks
    assert use.device.path == Path("/dev/loop7")
    assert told.guest.OCI.Root.Path == "/run/kata-containers/shared/containers/c1"
    assert rooted_on_a_disk().rootfs == DISK_ROOT
    assert rooted_on_a_disk().disks == ()


def test_a_guest_without_a_share_has_its_rootfs_on_a_disk_or_is_refused() -> None:
    alone = sandbox(namespaced(*ALL), shared_fs="none")
    assert (alone.shared, alone.vm.devices, list(alone.guest.storages)) == (False, (), [])
    assert rooted_on_a_disk(shared_fs="none", disable_block_device_use=False).rootfs is None
    with pytest.raises(InvalidArgument, match='shared_fs is "none": the root file system must be a disk'):
        rooted_on_a_disk(shared_fs="none")


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


def test_hooks_seccomp_and_labels_stay_on_the_host() -> None:
    told = guest(
        spec(
            process={
                "user": {"uid": 1, "gid": 2}, "args": ["a"], "cwd": "/", "selinuxLabel": "l",
                "apparmorProfile": "cri-containerd.apparmor.d",
            },
            hooks={"prestart": [{"path": "/hook"}]},
            linux={"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "mountLabel": "m"},
        )
    )  # fmt: skip
    assert "hooks" not in told
    assert not {"seccomp", "mountLabel"} & told.get("linux", {}).keys()
    assert not {"apparmorProfile", "selinuxLabel"} & told["process"].keys()


def test_seccomp_is_kept_where_the_configuration_wants_it() -> None:
    wanting = replace(configuration(), runtime=RuntimeConfig(disable_guest_seccomp=False))
    profile = {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}
    plan = plan_container(wanting, spec(linux=profile), container_id="c1", bundle=BUNDLE, stdio=StdioSpec())
    assert plan.guest.OCI.Linux.Seccomp.DefaultAction == "SCMP_ACT_ERRNO"


def test_resources_that_are_numbered_differently_in_the_guest_are_left_out() -> None:
    assert guest_resources(
        {
            "devices": [{"allow": False}], "pids": {"limit": 5}, "blockIO": {"weight": 10}, "network": {"classID": 1},
            "memory": {"limit": 1 << 30}, "cpu": {"shares": 512, "cpus": "0-3", "mems": "0"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        }
    ) == {
        "memory": {"limit": 1 << 30}, "cpu": {"shares": 512}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
    }  # fmt: skip


def test_namespaces_of_the_sandbox_are_left_out_and_paths_blanked() -> None:
    plan = container(
        spec(
            linux={
                "namespaces": [
                    {"type": "network", "path": "/var/run/netns/x"}, {"type": "cgroup"}, {"type": "time"},
                    {"type": "mount"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}, {"type": "pid"},
                ]
            }
        )
    )  # fmt: skip
    assert [(n.Type, n.Path) for n in plan.guest.OCI.Linux.Namespaces] == [("mount", ""), ("ipc", ""), ("pid", "")]
    assert not plan.guest.sandbox_pidns


def test_a_pid_namespace_that_is_joined_is_the_sandboxs() -> None:
    plan = container(spec(linux={"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}))
    assert list(plan.guest.OCI.Linux.Namespaces) == []
    assert plan.guest.sandbox_pidns


def test_binds_become_volumes_that_the_guest_finds_in_the_share() -> None:
    plan = container(spec(mounts=[bind("/data", "/host/data"), bind("/etc/hosts", "/host/hosts", "ro")]))
    data, hosts = plan.volumes
    assert (data.source, data.read_only) == (Path("/host/data"), False)
    assert (hosts.source, hosts.read_only) == (Path("/host/hosts"), True)
    mounts = plan.guest.OCI.Mounts
    assert [(m.destination, m.source) for m in mounts] == [
        ("/data", f"{SHARE}/{data.name}"), ("/etc/hosts", f"{SHARE}/{hosts.name}"),
    ]  # fmt: skip
    assert list(mounts[1].options) == ["rbind", "ro"]
    assert hosts.name.startswith("c1-")
    assert hosts.name.endswith("-hosts")


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        bind("/proc/sysrq-trigger", "/proc/sysrq-trigger", "ro"),
        bind("/sys/firmware", "/sys/firmware"),
        bind("/dev/fuse", "/dev/fuse"),
    ],
)
def test_what_the_guest_has_itself_is_not_shared(mount: dict[str, Any]) -> None:
    plan = container(spec(mounts=[mount]))
    assert plan.volumes == ()
    (told,) = plan.guest.OCI.Mounts
    assert (told.destination, told.source) == (mount["destination"], mount["source"])


def test_a_path_that_only_begins_like_dev_is_shared() -> None:
    assert len(container(spec(mounts=[bind("/x", "/devices"), bind("/processes", "/y")])).volumes) == 2


def test_shared_memory_of_the_host_becomes_the_guests() -> None:
    plan = container(spec(mounts=[bind("/dev/shm", "/run/shm")]))
    assert plan.volumes == ()
    (told,) = plan.guest.OCI.Mounts
    assert (told.type, told.source) == ("tmpfs", "shm")
    assert "size=67108864" in told.options


def test_a_pods_containers_share_the_memory_that_the_sandbox_has_for_it() -> None:
    [_, shm] = sandbox(spec(), role=Role.SANDBOX).guest.storages
    assert (shm.driver, shm.fstype, shm.mount_point) == ("ephemeral", "tmpfs", "/run/kata-containers/sandbox/shm")
    assert "size=67108864" in shm.options
    for role in (Role.SANDBOX, Role.CONTAINER):
        plan = container(spec(mounts=[bind("/dev/shm", "/run/shm", "ro")]), role=role)
        (told,) = plan.guest.OCI.Mounts
        assert (told.type, told.source, list(told.options)) == ("bind", shm.mount_point, ["rbind", "ro"])
    assert [storage.driver for storage in sandbox(spec()).guest.storages] == ["virtio-fs"]


@pytest.mark.parametrize(("missing", "field"), [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")])
def test_a_pod_in_a_namespace_of_the_host_is_refused_with_the_fields_name(missing: str, field: str) -> None:
    described = namespaced(*(kind for kind in ALL if kind != missing))
    with pytest.raises(InvalidArgument, match=f"^{field} is not possible: .* {missing} namespace"):
        sandbox(described, role=Role.SANDBOX)
    container(described, role=Role.CONTAINER)  # it goes where its sandbox is


def test_a_container_alone_is_refused_the_hosts_network_only() -> None:
    sandbox(namespaced("network"))
    with pytest.raises(InvalidArgument, match="hostNetwork"):
        sandbox(namespaced("pid", "ipc", "uts", "mount"))


def test_users_of_its_own_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="hostUsers: false"):
        sandbox(namespaced(*ALL, "user"), role=Role.SANDBOX)


@pytest.mark.parametrize(
    ("role", "name"), [(Role.SINGLE, "start"), (Role.SANDBOX, "start"), (Role.CONTAINER, "start c1")]
)
def test_a_stage_of_a_container_that_came_later_bears_its_id(role: Role, name: str) -> None:
    assert container(spec(), role=role).stage("start") == name


def test_crio_is_told_of_a_kill_for_want_of_memory_by_a_file() -> None:
    assert container(spec(annotations={"io.container.manager": "cri-o"})).oom_file
    assert not container(spec()).oom_file


def test_the_terminal_is_what_the_manager_asks_for() -> None:
    described = spec(
        process={
            "user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "terminal": True,
            "consoleSize": {"height": 24, "width": 80},
        }
    )  # fmt: skip
    with_terminal = container(described, stdio=StdioSpec(terminal=True))
    assert with_terminal.guest.OCI.Process.Terminal
    assert with_terminal.terminal_size == (24, 80)
    assert not container(described).guest.OCI.Process.Terminal


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


@pytest.mark.parametrize("missing", ["process", "root"])
def test_a_spec_without_process_or_root_is_refused(missing: str) -> None:
    incomplete = cast(dict[str, Any], spec())
    del incomplete[missing]
    with pytest.raises(InvalidArgument, match=missing):
        container(cast(Spec, incomplete))


def test_a_spec_without_arguments_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"process\.args"):
        container(spec(process={"user": {"uid": 0, "gid": 0}, "args": [], "cwd": "/"}))


def test_the_pods_resolv_conf_is_found() -> None:
    assert resolv_conf(spec(mounts=[bind("/etc/resolv.conf", "/run/x/resolv.conf")])) == Path("/run/x/resolv.conf")
    assert resolv_conf(spec()) is None


def test_this_host_has_processors_and_memory() -> None:
    host = Host.current()
    assert host.cpus >= 1
    assert host.memory > 64
