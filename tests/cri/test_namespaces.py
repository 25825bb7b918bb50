"""What a pod's containers share of the kernel, and what each has for itself."""

from __future__ import annotations

import pytest

from tests.cri.client import CriError
from tests.cri.conftest import ON_BOTH
from tests.cri.pods import NODE, POD, Pod, Pods, pid_of
from tests.cri.proto import cri_pb2 as cri

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.containerd, pytest.mark.usefixtures("clean")]


def sandbox(**options: cri.NamespaceMode) -> cri.LinuxPodSandboxConfig:
    """A pod's namespaces."""
    return cri.LinuxPodSandboxConfig(
        security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(**options))
    )


def container(**options: cri.NamespaceMode) -> cri.LinuxContainerConfig:
    """A container's namespaces."""
    return cri.LinuxContainerConfig(
        security_context=cri.LinuxContainerSecurityContext(namespace_options=cri.NamespaceOption(**options))
    )


@ON_BOTH
async def test_each_container_sees_only_its_own_processes(pods: Pods) -> None:
    async with pods.run() as pod:
        one = await pod.run("sleep", "1111")
        two = await pod.run("sleep", "2222")
        assert await one.sh("cat /proc/1/cmdline | tr '\\0' ' '") == "sleep 1111 "
        assert await two.sh("cat /proc/1/cmdline | tr '\\0' ' '") == "sleep 2222 "
        assert "2222" not in await one.sh("ps")


@ON_BOTH
async def test_with_shared_processes_each_container_sees_all(pods: Pods) -> None:
    async with pods.run(linux=sandbox(pid=POD)) as pod:
        one = await pod.run("sleep", "1111", linux=container(pid=POD))
        await pod.run("sleep", "2222", linux=container(pid=POD))
        listed = await one.sh("ps")
        assert "sleep 1111" in listed
        assert "sleep 2222" in listed


async def test_with_shared_processes_the_pods_first_is_number_one(pods: Pods) -> None:
    async with pods.run(linux=sandbox(pid=POD)) as pod:
        one = await pod.run("sleep", "1111", linux=container(pid=POD))
        assert "1111" not in await one.sh("cat /proc/1/cmdline | tr '\\0' ' '")


async def test_with_shared_processes_one_container_can_signal_another(pods: Pods) -> None:
    async with pods.run(linux=sandbox(pid=POD)) as pod:
        victim = await pod.run("sleep", "2222", linux=container(pid=POD))
        killer = await pod.outcome("sh", "-c", f"kill -KILL $({pid_of('sleep 2222')})", linux=container(pid=POD))
        assert killer.code == 0, killer
        assert (await victim.exited()).exit_code == 137


async def test_with_shared_processes_stopping_one_container_spares_the_others(pods: Pods) -> None:
    async with pods.run(linux=sandbox(pid=POD)) as pod:
        one = await pod.run("sleep", "1111", linux=container(pid=POD))
        other = await pod.run("sleep", "2222", linux=container(pid=POD))
        await one.stop(0)
        assert (await one.status()).exit_code == 137
        listed = await other.sh("ps")
        assert "sleep 2222" in listed
        assert "sleep 1111" not in listed


async def test_a_process_left_by_its_parent_is_reaped_in_a_pod_of_shared_processes(pods: Pods) -> None:
    async with pods.run(linux=sandbox(pid=POD)) as pod:
        one = await pod.run("sleep", "1111", linux=container(pid=POD))
        await one.sh("(sleep 0.1 &) ; sleep 0.5")
        assert " Z " not in await one.sh("ps")


@pytest.mark.parametrize("kind", ["ipc", "net", "uts"])
async def test_the_containers_of_a_pod_share_their_namespace_of(shared_pod: Pod, kind: str) -> None:
    links = {(await shared_pod.outcome("readlink", f"/proc/self/ns/{kind}")).stdout for _ in range(2)}
    assert len(links) == 1
    assert links != {b""}


@pytest.mark.parametrize("kind", ["mnt", "pid"])
async def test_each_container_has_its_own_namespace_of(shared_pod: Pod, kind: str) -> None:
    one = await shared_pod.run("sleep", "1000")
    two = await shared_pod.run("sleep", "1000")
    assert await one.sh(f"readlink /proc/self/ns/{kind}") != await two.sh(f"readlink /proc/self/ns/{kind}")
    await one.remove()
    await two.remove()


@ON_BOTH
async def test_two_pods_share_no_namespace(pods: Pods) -> None:
    async with pods.run() as one, pods.run() as two:
        script = "cat /proc/sys/kernel/random/boot_id; for kind in ipc net uts; do readlink /proc/self/ns/$kind; done"
        first, second = [(await pod.outcome("sh", "-c", script)).stdout.splitlines() for pod in (one, two)]
        assert first != second


@ON_BOTH
async def test_shared_memory_is_the_pods(pods: Pods) -> None:
    async with pods.run() as pod:
        writer = await pod.run("sh", "-c", "echo handed over > /dev/shm/note; sleep 1000")
        await writer.sh("until [ -s /dev/shm/note ]; do :; done")
        assert (await pod.outcome("cat", "/dev/shm/note")).stdout == b"handed over\n"


async def test_shared_memory_outlives_the_container_that_wrote_it(shared_pod: Pod) -> None:
    assert (await shared_pod.outcome("sh", "-c", "echo kept > /dev/shm/kept")).code == 0
    assert (await shared_pod.outcome("sh", "-c", "cat /dev/shm/kept; rm /dev/shm/kept")).stdout == b"kept\n"


async def test_shared_memory_is_a_tmpfs_of_64_mebibytes(shared_pod: Pod) -> None:
    line = (await shared_pod.outcome("df", "-k", "/dev/shm")).stdout.decode().splitlines()[-1].split()
    assert line[1] == "65536"


@ON_BOTH
async def test_the_hostname_is_the_pods(pods: Pods) -> None:
    async with pods.run(hostname="web-7") as pod:
        assert (await pod.outcome("hostname")).stdout == b"web-7\n"
        assert (await pod.outcome("cat", "/etc/hostname")).stdout == b"web-7\n"


async def test_the_hostname_is_in_the_environment(shared_pod: Pod) -> None:
    outcome = await shared_pod.outcome("sh", "-c", "echo $HOSTNAME")
    assert outcome.stdout.decode().strip() == shared_pod.config.hostname


async def test_a_container_cannot_change_the_hostname(shared_pod: Pod) -> None:
    assert (await shared_pod.outcome("hostname", "other")).code != 0


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
async def test_a_pod_in_a_namespace_of_the_host_is_refused_for(pods: Pods, kind: str) -> None:
    field = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}[kind]
    with pytest.raises(CriError, match=field):
        await pods.start(pods.config(linux=sandbox(**{kind: NODE})))
