"""A container's security context: who its process is, and what it may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH, ON_QEMU
from tests.cri.pods import Pod, Pods
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]

# Bits of the capabilities in /proc/<pid>/status (capabilities(7)).
CHOWN, NET_ADMIN, NET_RAW, SYS_TIME, SYS_ADMIN = 0, 12, 13, 25, 21


def secured(**context: Any) -> cri.LinuxContainerConfig:
    """A container's security context."""
    return cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(**context))


def user(uid: int, gid: int | None = None) -> dict[str, cri.Int64Value]:
    """Fields for a user and a group."""
    fields = {"run_as_user": cri.Int64Value(value=uid)}
    return fields if gid is None else {**fields, "run_as_group": cri.Int64Value(value=gid)}


async def status(pod: Pod, **context: Any) -> dict[str, str]:
    """The lines of /proc/self/status in a container of that context."""
    outcome = await pod.outcome("cat", "/proc/self/status", linux=secured(**context))
    assert outcome.code == 0, outcome
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in outcome.stdout.decode().splitlines())
    }


def has(line: str, capability: int) -> bool:
    """Whether a set of capabilities, as status shows it, has that one."""
    return bool(int(line, 16) >> capability & 1)


@ON_BOTH
async def test_a_container_runs_as_the_user_and_group_it_is_told(pods: Pods) -> None:
    async with pods.run() as pod:
        outcome = await pod.outcome("sh", "-c", "id -u; id -g", linux=secured(**user(1000, 2000)))
        assert outcome.stdout == b"1000\n2000\n"


async def test_a_user_is_found_by_name_in_the_image(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("id", "-u", linux=secured(run_as_username="nobody"))
    assert outcome.stdout == b"65534\n"


async def test_a_name_that_the_image_does_not_know_is_refused(shared_pod: Pod) -> None:
    with pytest.raises(CriError, match="no users found"):
        await shared_pod.create("true", linux=secured(run_as_username="stranger"))


async def test_a_user_without_an_entry_in_the_image_is_taken_as_a_number(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("sh", "-c", "id -u; id -g", linux=secured(**user(4242)))
    assert outcome.stdout == b"4242\n0\n"


async def test_supplementary_groups_are_added(shared_pod: Pod) -> None:
    groups = (await status(shared_pod, **user(1000, 1000), supplemental_groups=[3000, 4000]))["Groups"].split()
    assert {"3000", "4000"} <= set(groups)


async def test_groups_of_the_image_are_the_users_too(shared_pod: Pod) -> None:
    groups = (await status(shared_pod, run_as_username="nobody"))["Groups"].split()
    assert "8" in groups


async def test_an_exec_has_the_containers_groups(shared_pod: Pod) -> None:
    context = secured(**user(1000, 1000), supplemental_groups=[3000])
    container = await shared_pod.run("sleep", "1000", linux=context)
    assert "3000" in (await container.sh("id -G")).split()
    await container.remove()


@ON_BOTH
async def test_the_capabilities_are_the_managers_defaults(pods: Pods) -> None:
    async with pods.run() as pod:
        effective = (await status(pod))["CapEff"]
        assert has(effective, CHOWN)
        assert has(effective, NET_RAW)
        assert not has(effective, SYS_ADMIN)
        assert not has(effective, NET_ADMIN)


@pytest.mark.parametrize("kind", ["CapEff", "CapPrm", "CapBnd"])
async def test_a_capability_that_is_added_is_in(shared_pod: Pod, kind: str) -> None:
    added = await status(shared_pod, capabilities=cri.Capability(add_capabilities=["NET_ADMIN"]))
    assert has(added[kind], NET_ADMIN)


@pytest.mark.parametrize("kind", ["CapEff", "CapPrm", "CapBnd"])
async def test_a_capability_that_is_dropped_is_not_in(shared_pod: Pod, kind: str) -> None:
    dropped = await status(shared_pod, capabilities=cri.Capability(drop_capabilities=["CHOWN"]))
    assert not has(dropped[kind], CHOWN)
    assert has(dropped[kind], NET_RAW)


async def test_a_dropped_capability_is_missed(shared_pod: Pod) -> None:
    context = secured(capabilities=cri.Capability(drop_capabilities=["CHOWN"]))
    assert (await shared_pod.outcome("chown", "1:1", "/tmp", linux=context)).code != 0
    assert (await shared_pod.outcome("chown", "1:1", "/tmp")).code == 0


async def test_all_capabilities_can_be_dropped(shared_pod: Pod) -> None:
    dropped = await status(shared_pod, capabilities=cri.Capability(drop_capabilities=["ALL"]))
    assert int(dropped["CapEff"], 16) == 0
    assert int(dropped["CapBnd"], 16) == 0


async def test_all_can_be_dropped_but_one(shared_pod: Pod) -> None:
    capability = cri.Capability(drop_capabilities=["ALL"], add_capabilities=["NET_RAW"])
    assert int((await status(shared_pod, capabilities=capability))["CapEff"], 16) == 1 << NET_RAW


async def test_a_user_other_than_root_has_no_effective_capabilities(shared_pod: Pod) -> None:
    assert int((await status(shared_pod, **user(1000)))["CapEff"], 16) == 0


async def test_an_exec_has_the_containers_capabilities(shared_pod: Pod) -> None:
    context = secured(capabilities=cri.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"]))
    container = await shared_pod.run("sleep", "1000", linux=context)
    effective = (await container.sh("grep CapEff /proc/self/status")).split()[1]
    assert has(effective, NET_ADMIN)
    assert not has(effective, CHOWN)
    await container.remove()


@pytest.mark.parametrize("wanted", [True, False])
async def test_new_privileges_are_denied_if_wanted(shared_pod: Pod, wanted: bool) -> None:
    assert (await status(shared_pod, no_new_privs=wanted))["NoNewPrivs"] == str(int(wanted))


@ON_BOTH
async def test_a_read_only_root_is_not_written(pods: Pods) -> None:
    async with pods.run() as pod:
        outcome = await pod.outcome("touch", "/file", linux=secured(readonly_rootfs=True))
        assert outcome.code != 0
        assert b"Read-only" in outcome.stderr


async def test_a_volume_on_a_read_only_root_is_written(shared_pod: Pod, tmp_path: Path) -> None:
    volume = [cri.Mount(container_path="/work", host_path=str(tmp_path))]
    outcome = await shared_pod.outcome("touch", "/work/file", mounts=volume, linux=secured(readonly_rootfs=True))
    assert outcome.code == 0
    assert (tmp_path / "file").exists()


@ON_QEMU
async def test_a_privileged_container_has_every_capability_the_machine_gives(pods: Pods) -> None:
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(privileged=True))
    async with pods.run(linux=linux) as pod:
        lines = await status(pod, privileged=True)
        assert has(lines["CapEff"], SYS_ADMIN)
        assert has(lines["CapEff"], NET_ADMIN)
        assert lines["Seccomp"] == "0"


@ON_QEMU
async def test_a_privileged_container_may_mount(pods: Pods) -> None:
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(privileged=True))
    async with pods.run(linux=linux) as pod:
        script = "mkdir /mine && mount -t tmpfs none /mine && touch /mine/file"
        assert (await pod.outcome("sh", "-c", script, linux=secured(privileged=True))).code == 0
        assert (await pod.outcome("sh", "-c", script)).code != 0


async def test_a_privileged_container_is_refused_in_a_pod_that_is_not(shared_pod: Pod) -> None:
    with pytest.raises(CriError, match="privileged"):
        await shared_pod.create("true", linux=secured(privileged=True))


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list"])
async def test_a_masked_path_shows_nothing(shared_pod: Pod, path: str) -> None:
    context = secured(masked_paths=["/proc/kcore", "/proc/keys", "/proc/timer_list"])
    outcome = await shared_pod.outcome("sh", "-c", f"head -c 1 {path} | wc -c", linux=context)
    assert outcome.stdout == b"0\n"


async def test_a_masked_directory_is_empty(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("ls", "/sys/kernel", linux=secured(masked_paths=["/sys/kernel"]))
    assert (outcome.code, outcome.stdout) == (0, b"")


async def test_a_read_only_path_is_not_written(shared_pod: Pod) -> None:
    context = secured(readonly_paths=["/proc/sys"])
    outcome = await shared_pod.outcome("sh", "-c", "echo 1 > /proc/sys/kernel/shm_rmid_forced", linux=context)
    assert outcome.code != 0
    assert b"Read-only" in outcome.stderr


@ON_BOTH
async def test_sysctls_of_the_pod_are_set(pods: Pods) -> None:
    sysctls = {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "30000 40000"}
    async with pods.run(linux=cri.LinuxPodSandboxConfig(sysctls=sysctls)) as pod:
        paths = ["/proc/sys/kernel/shm_rmid_forced", "/proc/sys/net/ipv4/ip_local_port_range"]
        outcome = await pod.outcome("cat", *paths)
        assert outcome.stdout.split() == [b"1", b"30000", b"40000"]


async def test_sysctls_of_one_pod_are_not_anothers(pods: Pods) -> None:
    sysctls = {"kernel.shm_rmid_forced": "1"}
    async with pods.run(linux=cri.LinuxPodSandboxConfig(sysctls=sysctls)), pods.run() as other:
        assert (await other.outcome("cat", "/proc/sys/kernel/shm_rmid_forced")).stdout == b"0\n"


@ON_BOTH
async def test_a_seccomp_profile_of_the_node_is_applied(pods: Pods, tmp_path: Path) -> None:
    profile = tmp_path / "no-mkdir.json"
    denied = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}))
    seccomp = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=str(profile))
    async with pods.run() as pod:
        outcome = await pod.outcome("mkdir", "/made", linux=secured(seccomp=seccomp))
        assert outcome.code != 0
        assert b"not permitted" in outcome.stderr
        assert (await pod.outcome("touch", "/made", linux=secured(seccomp=seccomp))).code == 0


async def test_the_default_seccomp_profile_filters(shared_pod: Pod) -> None:
    seccomp = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    assert (await status(shared_pod, seccomp=seccomp))["Seccomp"] == "2"
    assert (await shared_pod.outcome("unshare", "-U", "true", linux=secured(seccomp=seccomp))).code != 0


async def test_without_a_seccomp_profile_nothing_is_filtered(shared_pod: Pod) -> None:
    seccomp = cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)
    assert (await status(shared_pod, seccomp=seccomp))["Seccomp"] == "0"


async def test_an_exec_is_filtered_as_its_container(shared_pod: Pod) -> None:
    seccomp = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    container = await shared_pod.run("sleep", "1000", linux=secured(seccomp=seccomp))
    assert (await container.sh("grep Seccomp: /proc/self/status")).split()[1] == "2"
    await container.remove()


async def test_limits_of_the_spec_are_the_processs(shared_pod: Pod) -> None:
    container = await shared_pod.run("sleep", "1000")
    limits = {limit["type"]: limit["soft"] for limit in (await container.spec())["process"].get("rlimits", [])}
    lines = (await container.sh("cat /proc/self/limits")).splitlines()
    open_files = next(line.split() for line in lines if line.startswith("Max open files"))
    if "RLIMIT_NOFILE" in limits:
        assert int(open_files[3]) == limits["RLIMIT_NOFILE"]
    assert int(open_files[3]) >= 1024
    await container.remove()
