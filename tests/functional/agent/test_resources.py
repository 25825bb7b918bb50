"""Limits that are changed while a container runs, and what happens at one; with the cgroups that this host has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_protos import agent_pb2 as agent
from kata_protos import oci_pb2 as oci
from kata_protos.agent_ttrpc import AgentClient
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code
from tests import cgroups
from tests.drivers.pod import TIMEOUT, Pod, machine, sandbox_request

pytestmark = pytest.mark.root

MIB = 1 << 20
OVERSIZED = "head -c 64m /dev/zero | tail -c 60m | wc -c"
# Takes the MiB that it is told on stdin, a line each.
EATER = 'while read mib; do kept="$kept$(head -c ${mib}m /dev/zero | tr "\\0" x)"; echo eaten; done'


CGROUP = "/pod/ctr"


def cgroup_root(pod: Pod) -> Path:
    return pod.path("/sys/fs/cgroup")


def limits(pod: Pod) -> cgroups.Limits:
    return cgroups.Limits.read(CGROUP, cgroup_root(pod))


async def test_limits_are_raised_and_lowered_and_others_stay(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    for limit in (64, 256, 32):
        await pod.update("ctr", Memory=oci.LinuxMemory(Limit=limit * MIB, Reservation=16 * MIB))
        assert limits(pod).memory == limit * MIB
    await pod.update("ctr", CPU=oci.LinuxCPU(Shares=512, Quota=20000, Period=50000), Pids=oci.LinuxPids(Limit=99))

    assert limits(pod) == cgroups.Limits(
        memory=32 * MIB, reservation=16 * MIB, quota=20000, period=50000, weight=20, pids=99
    )  # fmt: skip
    await pod.update("ctr", Memory=oci.LinuxMemory(Limit=-1), CPU=oci.LinuxCPU(Quota=-1), Pids=oci.LinuxPids(Limit=-1))
    freed = limits(pod)
    assert (freed.memory, freed.quota, freed.pids) == (None, None, None)


async def test_a_request_without_resources_changes_nothing(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.update("ctr", Pids=oci.LinuxPids(Limit=50))

    await pod.calls.UpdateContainer(agent.UpdateContainerRequest(container_id="ctr"), timeout=TIMEOUT)

    assert limits(pod).pids == 50


async def test_a_limit_below_what_is_in_use_is_refused_and_the_container_lives(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", EATER)
    await pod.write("ctr", b"20\n")
    await pod.read_until(b"eaten", "ctr")

    with pytest.raises(
        StatusError, match=r"cannot set memory.limit to 4194304: the container uses \d+ bytes"
    ) as refusal:
        await pod.update("ctr", Memory=oci.LinuxMemory(Limit=4 * MIB))

    assert refusal.value.code is Code.INTERNAL
    await pod.write("ctr", b"1\n")
    assert await pod.read("ctr") == b"eaten\n"


async def test_a_value_that_the_kernel_refuses_is_named(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")

    with pytest.raises(StatusError, match=r"cannot set cpu.cpus to 4000: .*\(cpuset.cpus\)"):
        await pod.update("ctr", CPU=oci.LinuxCPU(Cpus="4000"))


async def test_devices_are_denied_and_allowed_anew(pod: Pod) -> None:
    request = pod.request("ctr", "sleep", "1000")
    request.OCI.Linux.Devices.add(Path="/dev/log", Type="c", Major=1, Minor=11, FileMode=0o666)
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start("ctr")
    rule = oci.LinuxDeviceCgroup(Type="c", Major=1, Minor=11, Access="rwm")

    for name, allowed in (("one", False), ("two", True)):
        rule.Allow = allowed
        await pod.update("ctr", Devices=[rule])
        assert ((await pod.shell("ctr", ": > /dev/log", name)).code == 0) is allowed


async def test_processors_named_in_a_spec_are_given_once_they_are_online(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    await pod.update("ctr", CPU=oci.LinuxCPU(Cpus="0"))
    cpus = cgroups.directory("cpuset", CGROUP, cgroup_root(pod)) / "cpuset.cpus"
    cpus.write_text("0-1")

    await pod.calls.OnlineCPUMem(agent.OnlineCPUMemRequest(nb_cpus=1, cpu_only=True), timeout=TIMEOUT)

    assert cpus.read_text() == "0\n"


async def test_each_kill_for_want_of_memory_is_an_event(pod: Pod) -> None:
    waiting = asyncio.create_task(pod.oom_event())
    await pod.run("ctr", "sleep", "1000")
    await pod.update("ctr", Memory=oci.LinuxMemory(Limit=16 * MIB))

    for number in range(2):
        eaten = await pod.shell("ctr", OVERSIZED, f"x{number}")
        assert b"62914560" not in eaten.stdout
        assert await waiting == "ctr"
        waiting = asyncio.create_task(pod.oom_event())

    waiting.cancel()


async def test_a_first_process_killed_for_want_of_memory_is_known_when_its_end_is(pod: Pod) -> None:
    request = pod.request("ctr", "sh", "-c", EATER)
    request.OCI.Linux.Resources.Memory.Limit = 16 * MIB
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)
    await pod.start("ctr")

    await pod.write("ctr", b"64\n")

    assert await pod.wait("ctr") == 137
    assert await pod.oom_event() == "ctr"


async def test_an_abandoned_receiver_takes_no_event(pod: Pod) -> None:
    async with connect(pod.vm.agent, timeout=TIMEOUT) as other:
        calls = AgentClient(other)
        abandoned = asyncio.create_task(calls.GetOOMEvent(agent.GetOOMEventRequest(), timeout=TIMEOUT))
        await asyncio.sleep(0)
        await calls.GetGuestDetails(agent.GuestDetailsRequest(), timeout=TIMEOUT)  # behind it on the same connection
    with pytest.raises(ConnectionClosed):
        await abandoned

    await pod.run("ctr", "sleep", "1000")
    await pod.update("ctr", Memory=oci.LinuxMemory(Limit=16 * MIB))
    await pod.shell("ctr", OVERSIZED)

    assert await pod.oom_event() == "ctr"


async def test_whoever_waits_for_events_is_told_of_the_sandboxes_end(pod: Pod) -> None:
    waiting = asyncio.create_task(pod.oom_event())
    await asyncio.sleep(0)

    await pod.calls.DestroySandbox(agent.DestroySandboxRequest(), timeout=TIMEOUT)

    with pytest.raises(StatusError, match="the sandbox was destroyed") as refusal:
        await waiting
    assert refusal.value.code is Code.INTERNAL


async def test_a_container_alone_in_its_sandbox_is_watched_like_any_other(top: Path, rootfs: Path) -> None:
    async with machine(top) as (vm, share), connect(vm.agent, timeout=TIMEOUT) as client:
        calls = AgentClient(client)
        await calls.CreateSandbox(sandbox_request(sandbox_id="ctr"), timeout=TIMEOUT)
        pod = Pod(vm, client, calls, share, rootfs)
        await pod.run("ctr", "sleep", "1000")
        await pod.update("ctr", Memory=oci.LinuxMemory(Limit=16 * MIB))
        await pod.shell("ctr", OVERSIZED)

        assert await pod.oom_event() == "ctr"


async def test_figures_are_those_of_the_cgroups_files_also_of_a_paused_container(pod: Pod) -> None:
    await pod.run("ctr", "sh", "-c", EATER)
    await pod.write("ctr", b"3\n")
    await pod.read_until(b"eaten", "ctr")

    await pod.pause("ctr")
    stats = await pod.stats("ctr")
    await pod.resume("ctr")

    # A process that waits for its input uses nothing, so the files still say the same.
    root = cgroup_root(pod)
    assert stats.cpu_stats.cpu_usage.total_usage <= cgroups.cpu_time(CGROUP, root)
    assert stats.cpu_stats.cpu_usage.total_usage > 0
    assert stats.memory_stats.usage.usage > 3 * MIB
    assert stats.memory_stats.usage.max_usage == cgroups.memory_peak(CGROUP, root)
    table = cgroups.memory_table(CGROUP, root)
    assert stats.memory_stats.stats.keys() <= table.keys()
    assert stats.memory_stats.stats["pgfault"] == table["pgfault"]
    assert (stats.pids_stats.current, stats.pids_stats.limit) == (1, 0)


async def test_the_network_that_all_share_is_counted(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    link = ("nsenter", "-t", str(pod.agent_pid), "-n", "ip", "link", "add", "eth0", "type", "veth", "peer", "eth1")
    assert await (await asyncio.create_subprocess_exec(*link)).wait() == 0

    answer = await pod.calls.StatsContainer(agent.StatsContainerRequest(container_id="ctr"), timeout=TIMEOUT)

    assert {network.name for network in answer.network_stats} == {"eth0", "eth1"}
