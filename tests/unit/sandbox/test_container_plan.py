from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kata_py.config.model import RuntimeConfig
from kata_py.oci.spec import Spec
from kata_py.sandbox.container_plan import ContainerPlan, guest_resources, plan_container
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.pod import Role
from kata_py.sandbox.stdio import StdioSpec
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.source import Kind, Source, Sources
from tests.unit.sandbox.plans import (
    ALL,
    BUNDLE,
    SHARE,
    bind,
    configuration,
    container,
    guest,
    namespaced,
    sandbox,
    spec,
)


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


@pytest.mark.parametrize("missing", ["process", "root"])
def test_a_spec_without_process_or_root_is_refused(missing: str) -> None:
    incomplete = cast(dict[str, Any], spec())
    del incomplete[missing]
    with pytest.raises(InvalidArgument, match=missing):
        container(cast(Spec, incomplete))


def test_a_spec_without_arguments_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"process\.args"):
        container(spec(process={"user": {"uid": 0, "gid": 0}, "args": [], "cwd": "/"}))
