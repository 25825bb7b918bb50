"""Statistics, and calls for the machine under the sandbox."""

from __future__ import annotations

import os
import time

import pytest

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import TIMEOUT, Pod

pytestmark = pytest.mark.root


async def test_statistics_grow_with_what_a_container_does(pod: Pod) -> None:
    await pod.run("ctr", "sleep", "1000")
    before = await pod.stats("ctr")

    await pod.shell("ctr", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; head -c 8000000 /dev/zero >/file")
    after = await pod.stats("ctr")

    used = after.cpu_stats.cpu_usage.total_usage - before.cpu_stats.cpu_usage.total_usage
    assert 1_000_000 < used < 20_000_000_000
    assert after.memory_stats.usage.usage > 0
    assert after.memory_stats.usage.max_usage >= after.memory_stats.usage.usage
    assert after.memory_stats.stats
    assert after.pids_stats.current == 1


async def test_limits_are_told(pod: Pod) -> None:
    request = pod.request("ctr", "sleep", "1000")
    request.OCI.Linux.Resources.Memory.Limit = 64 << 20
    request.OCI.Linux.Resources.Pids.Limit = 50
    pod.unpack("ctr")
    await pod.calls.CreateContainer(request, timeout=TIMEOUT)

    stats = await pod.stats("ctr")

    assert stats.memory_stats.usage.limit == 64 << 20
    assert stats.pids_stats.limit == 50


async def test_a_container_that_has_ended_still_has_figures(pod: Pod) -> None:
    await pod.run("ctr", "true")
    await pod.wait("ctr")

    assert (await pod.stats("ctr")).cpu_stats.cpu_usage.total_usage > 0


async def test_details_say_what_the_agent_is(pod: Pod) -> None:
    request = agent.GuestDetailsRequest(mem_block_size=True, mem_hotplug_probe=True)

    details = await pod.calls.GetGuestDetails(request, timeout=TIMEOUT)

    assert details.agent_details.version
    assert details.agent_details.init_daemon
    assert details.agent_details.supports_seccomp
    assert list(details.agent_details.storage_handlers) == [
        "bind", "blk", "blk-ccw", "ephemeral", "image_guest_pull", "local", "mmioblk", "nvdimm", "overlayfs",
        "scsi", "virtio-fs", "watchable-bind",
    ]  # fmt: skip
    assert details.mem_block_size_bytes % 4096 == 0


async def test_a_seed_is_taken_and_none_is_refused(pod: Pod) -> None:
    await pod.calls.ReseedRandomDev(agent.ReseedRandomDevRequest(data=os.urandom(64)), timeout=TIMEOUT)

    with pytest.raises(StatusError, match="no data"):
        await pod.calls.ReseedRandomDev(agent.ReseedRandomDevRequest(), timeout=TIMEOUT)


async def test_what_is_no_time_is_refused(pod: Pod) -> None:
    with pytest.raises(StatusError, match="not a time") as refusal:
        await pod.calls.SetGuestDateTime(agent.SetGuestDateTimeRequest(Sec=1, Usec=10**6), timeout=TIMEOUT)

    assert refusal.value.code is Code.INVALID_ARGUMENT


async def test_a_clock_that_is_not_ours_is_not_set(pod: Pod) -> None:
    before = time.time()

    with pytest.raises(StatusError, match="Operation not permitted") as refusal:
        await pod.calls.SetGuestDateTime(agent.SetGuestDateTimeRequest(Sec=1000), timeout=TIMEOUT)

    assert refusal.value.code is Code.INTERNAL
    assert abs(time.time() - before) < 60


async def test_processors_that_are_there_are_online(pod: Pod) -> None:
    await pod.calls.OnlineCPUMem(agent.OnlineCPUMemRequest(nb_cpus=1, cpu_only=True), timeout=TIMEOUT)


async def test_a_call_that_the_protocol_lacks_is_unimplemented(pod: Pod) -> None:
    with pytest.raises(StatusError, match="NoSuch") as refusal:
        await pod.client.call("grpc.AgentService", "NoSuch", b"", timeout=TIMEOUT)

    assert refusal.value.code is Code.UNIMPLEMENTED


async def test_garbage_is_answered_and_the_agent_lives(pod: Pod) -> None:
    with pytest.raises(StatusError):
        await pod.client.call("grpc.AgentService", "CreateContainer", b"\xff" * 100, timeout=TIMEOUT)

    await pod.run("ctr", "true")
    assert await pod.wait("ctr") == 0
