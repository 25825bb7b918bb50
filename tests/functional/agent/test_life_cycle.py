"""Sandbox and containers, from their making to their end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos.agent_ttrpc import AgentClient
from kata_protos.health_pb2 import CheckRequest, HealthCheckResponse
from kata_protos.health_ttrpc import HealthClient
from kata_py.resource import mount
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import cgroups
from tests.drivers.pod import GUEST_SHARE, TIMEOUT, Pod, machine, sandbox_request
from tests.drivers.pod import pod as make_pod
from tests.tasks import until

pytestmark = pytest.mark.root


async def test_health_is_answered_without_a_sandbox(top: Path) -> None:
    async with machine(top) as (vm, _), connect(vm.agent, timeout=TIMEOUT) as client:
        health = HealthClient(client)

        answer = await health.Check(CheckRequest(), timeout=TIMEOUT)
        version = await health.Version(CheckRequest(), timeout=TIMEOUT)

    assert answer.status == HealthCheckResponse.SERVING
    assert version.grpc_version == "0.0.1"
    assert version.agent_version


async def test_a_container_lives_from_creation_to_removal_and_leaves_nothing(pod: Pod) -> None:
    bundle = pod.path("/run/kata-containers/ctr")
    cgroup = cgroups.directory("memory", "/pod/ctr", pod.path("/sys/fs/cgroup"))

    await pod.create("ctr", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (bundle / "config.json").exists()
    assert cgroup.exists()
    await pod.start("ctr")
    outcome = await pod.outcome("ctr")
    await pod.remove("ctr")

    assert (outcome.code, outcome.stdout, outcome.stderr) == (7, b"out\n", b"err\n")
    assert not bundle.exists()
    assert not cgroup.exists()
    assert "/kata-containers/ctr" not in pod.path("/proc/1/mountinfo").read_text()
    assert list(pod.path("/run/kata-agent").iterdir()) == []
    assert list(pod.path("/run/crun").iterdir()) == []
    assert (pod.share / "ctr" / "rootfs" / "bin").is_dir()
    assert pod.processes() == {}


async def test_the_program_does_not_begin_before_start(pod: Pod) -> None:
    await pod.create("ctr", "touch", "/began")
    began = pod.share / "ctr" / "rootfs" / "began"
    assert not began.exists()

    await pod.start("ctr")

    assert await pod.wait("ctr") == 0
    assert began.exists()


async def test_waiting_before_the_start_is_answered_at_the_end(pod: Pod) -> None:
    await pod.create("ctr", "sh", "-c", "exit 3")
    waiting = asyncio.create_task(pod.wait("ctr"))

    await pod.start("ctr")

    assert await waiting == 3


async def test_a_created_container_can_be_removed_without_a_start(pod: Pod) -> None:
    await pod.create("ctr", "true")

    await pod.remove("ctr")

    assert pod.processes() == {}


async def test_removing_a_running_container_kills_all_of_it(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo up; wait")
    await pod.exec("ctr", "more", "sleep", "1000")
    await pod.read_until(b"up", "ctr")
    waiting = asyncio.create_task(pod.wait("ctr"))
    await asyncio.sleep(0)

    await pod.remove("ctr", timeout=10)

    assert await waiting == 137
    assert pod.processes() == {}


async def test_an_id_can_be_used_again_after_removal(pod: Pod) -> None:
    for code in (1, 2):
        await pod.run("ctr", "sh", "-c", f"exit {code}")
        assert await pod.wait("ctr") == code
        await pod.remove("ctr")


async def test_a_second_container_of_an_id_is_refused_and_the_first_unharmed(pod: Pod) -> None:
    await pod.run("ctr", "cat")

    with pytest.raises(StatusError, match="container ctr already exists") as refusal:
        await pod.create("ctr", "true")

    assert refusal.value.code is Code.ALREADY_EXISTS
    assert await pod.write("ctr", b"alive\n") == 6
    assert await pod.read("ctr") == b"alive\n"


async def test_a_missing_program_is_named_and_nothing_is_left(pod: Pod) -> None:
    with pytest.raises(StatusError, match='executable file "no-such" not found in \\$PATH') as refusal:
        await pod.create("ctr", "no-such")

    assert refusal.value.code is Code.INTERNAL
    assert not pod.path("/run/kata-containers/ctr").exists()
    await pod.create("ctr", "true")


async def test_a_missing_root_is_named(pod: Pod) -> None:
    request = pod.request("ctr", "true")
    request.OCI.Root.Path = f"{GUEST_SHARE}/elsewhere"

    with pytest.raises(StatusError, match="elsewhere: No such file or directory"):
        await pod.calls.CreateContainer(request, timeout=TIMEOUT)

    assert not pod.path("/run/kata-containers/ctr").exists()


@pytest.mark.parametrize("container_id", ["", "../up", "a/b", ".hidden", "white space", "ends\n"])
async def test_an_id_that_is_none_is_refused(pod: Pod, container_id: str) -> None:
    with pytest.raises(StatusError, match="invalid container id") as refusal:
        await pod.calls.CreateContainer(pod.request(container_id, "true"), timeout=TIMEOUT)

    assert refusal.value.code is Code.INVALID_ARGUMENT


async def test_a_request_without_spec_or_process_is_refused(pod: Pod) -> None:
    without_process = pod.request("ctr", "true")
    without_process.OCI.ClearField("Process")

    for request in (agent.CreateContainerRequest(container_id="ctr"), without_process):
        with pytest.raises(StatusError) as refusal:
            await pod.calls.CreateContainer(request, timeout=TIMEOUT)
        assert refusal.value.code is Code.INVALID_ARGUMENT


async def test_containers_share_the_pods_name_but_not_their_processes(pod: Pod) -> None:
    script = "hostname; for kind in uts ipc net pid; do readlink /proc/self/ns/$kind; done; echo $$"
    for name in ("one", "two"):
        await pod.run(name, "sh", "-c", script)

    one, two = [(await pod.read_all(name)).split() for name in ("one", "two")]

    assert one[0] == b"pod"
    assert one[:4] == two[:4]
    assert one[4] != two[4]
    assert one[5] == two[5] == b"1"


async def test_settings_of_the_pods_network_are_made(pod: Pod) -> None:
    request = pod.request("ctr", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    request.OCI.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "123"
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)

    await pod.start("ctr")

    assert (await pod.outcome("ctr")).stdout == b"123\n"


async def test_containers_may_share_their_processes(pod: Pod) -> None:
    await pod.run("one", "sleep", "1000")
    (pod.share / "two").mkdir()
    (pod.share / "two" / "rootfs").symlink_to("../one/rootfs")

    await pod.calls.CreateContainer(pod.request("two", "ps", share_pids=True), timeout=TIMEOUT)
    await pod.start("two")

    assert b"sleep 1000" in await pod.read_all("two")


@pytest.fixture
def shared(top: Path) -> Iterator[Path]:
    """The share as a mount that passes on what is mounted below it."""
    share = top / "share"
    share.mkdir()
    mount.mount(str(share), str(share), flags=mount.MS_BIND)
    mount.mount("none", str(share), flags=mount.MS_SHARED)
    yield share
    mount.detach_below(str(share))


async def test_a_root_file_system_that_appears_later_on_the_host_is_seen(shared: Path, top: Path, rootfs: Path) -> None:
    async with make_pod(top, rootfs) as pod:
        root = shared / "ctr" / "rootfs"
        root.mkdir(parents=True)
        mount.mount(str(rootfs), str(root), flags=mount.MS_BIND)

        await pod.run("ctr", "echo", "seen")

        assert (await pod.outcome("ctr")).stdout == b"seen\n"
        await pod.remove("ctr")
        assert (rootfs / "bin" / "busybox").exists()


async def test_a_sandbox_is_made_once(pod: Pod) -> None:
    with pytest.raises(StatusError, match="the sandbox already exists"):
        await pod.calls.CreateSandbox(sandbox_request(), timeout=TIMEOUT)


async def test_names_of_the_pods_servers_cover_the_guests(top: Path) -> None:
    async with machine(top) as (vm, share), connect(vm.agent, timeout=TIMEOUT) as client:
        calls = AgentClient(client)
        await calls.CreateSandbox(sandbox_request(dns=["nameserver 192.0.2.1", "search pod"]), timeout=TIMEOUT)
        pod = Pod(vm, client, calls, share, share)

        assert pod.path("/etc/resolv.conf").read_text() == "nameserver 192.0.2.1\nsearch pod\n"


async def test_a_kernel_module_that_cannot_be_loaded_is_named(top: Path) -> None:
    module = agent.KernelModule(name="no_such_module", parameters=["a=1"])
    async with machine(top) as (vm, _), connect(vm.agent, timeout=TIMEOUT) as client:
        with pytest.raises(StatusError, match=r"cannot load kernel module no_such_module: .*not found"):
            await AgentClient(client).CreateSandbox(sandbox_request(kernel_modules=[module]), timeout=TIMEOUT)


async def test_destroying_the_sandbox_ends_containers_and_machine(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    await pod.calls.DestroySandbox(agent.DestroySandboxRequest(), timeout=TIMEOUT)

    async with asyncio.timeout(TIMEOUT):
        assert (await pod.vm.wait()).cause == "guest powered off"


async def test_the_machines_end_is_noticed_at_once_by_all_who_wait(top: Path, rootfs: Path) -> None:
    async with machine(top) as (vm, _), connect(vm.agent, timeout=TIMEOUT) as client:
        await HealthClient(client).Check(CheckRequest(), timeout=TIMEOUT)
        waiters = [asyncio.create_task(vm.wait()) for _ in range(2)]
        pod = Pod(vm, client, AgentClient(client), top, rootfs)
        agent_pid = pod.agent_pid

        os.kill(agent_pid, signal.SIGKILL)

        async with asyncio.timeout(TIMEOUT):
            for exit in await asyncio.gather(*waiters):
                assert exit.cause.startswith("agent ended")
                assert not exit.expected
                assert exit.evidence[0] == "kata-boot: agent"
            await client.wait_closed()


async def test_what_runs_in_containers_ends_with_the_agent(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    running = list(pod.processes())
    assert running

    os.kill(pod.agent_pid, signal.SIGKILL)

    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))
