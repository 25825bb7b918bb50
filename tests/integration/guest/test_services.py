"""What the agent offers besides containers, in the built guest: figures, log, shell, swap, files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.guest_machine import Boot, run
from bench.guest_machine import guest as built
from kata_agent import __version__
from kata_protos.agent_pb2 import (
    AddSwapRequest,
    CopyFileRequest,
    GetMetricsRequest,
    GuestDetailsRequest,
    SetPolicyRequest,
    VolumeStatsRequest,
)
from kata_protos.agent_ttrpc import AgentClient
from kata_py.ttrpc.errors import StatusError

pytestmark = pytest.mark.qemu

CALL = 30.0  # seconds
MEBIBYTE = 1 << 20


@pytest.fixture
def boot(guest: Path) -> Boot:
    """The built guest, on little memory."""
    assert guest.is_dir()
    return replace(built(), memory=512)


async def _metrics(agent: AgentClient) -> dict[str, Metric]:
    text = (await agent.GetMetrics(GetMetricsRequest(), timeout=CALL)).metrics
    return {family.name: family for family in text_string_to_metric_families(text)}


def _items(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


async def test_figures_of_a_running_guest_are_whole_and_can_be_parsed(boot: Boot) -> None:
    async with run(boot) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        await _metrics(agent)
        families = await _metrics(agent)

    assert families["kata_agent_scrape_count"].type == "counter"
    assert _items(families["kata_agent_scrape_count"]) == {(): 2}
    expected = "threads total_time total_vm total_rss proc_stat proc_status io_stat"
    assert {f"kata_agent_{name}" for name in expected.split()} <= set(families)
    expected = "load tasks cpu_time vm_stat netdev_stat diskstat meminfo"
    assert {f"kata_guest_{name}" for name in expected.split()} <= set(families)
    assert 300 * MEBIBYTE < _items(families["kata_guest_meminfo"])["mem_total",] < 512 * MEBIBYTE
    assert _items(families["kata_guest_diskstat"])["vda", "reads"] > 10
    assert ("lo", "recv_bytes") in _items(families["kata_guest_netdev_stat"])
    assert 0 < _items(families["kata_agent_total_time"])[()] < 60


async def test_log_and_shell_are_ports_by_name_where_there_is_no_vsock(boot: Boot) -> None:
    asked = ("agent.log=debug", "agent.log_vport=1025", "agent.debug_console", "agent.debug_console_vport=1026")
    ports = ("agent.log.0", "agent.debug_console.0")
    boot = replace(boot, ports=ports, parameters=(*boot.parameters, *asked, "agent.passfd_listener_port=1027"))
    async with run(boot) as machine, machine.agent(), asyncio.timeout(CALL):
        log, log_writer = await asyncio.open_unix_connection(machine.sockets / "agent.log.0")
        records = [json.loads(await log.readline()) for _ in range(4)]
        shell, shell_writer = await asyncio.open_unix_connection(machine.sockets / "agent.debug_console.0")
        shell_writer.write(b"tty; echo $((6 * 7)) $(cat /proc/1/comm)\n")
        said = b""
        while b"\n42 " not in said:
            said += await shell.read(4096)
        shell_writer.write(b"exit\n")
        while "debug console: shell" not in records[-1]["msg"] or "ended with status 0" not in records[-1]["msg"]:
            records.append(json.loads(await log.readline()))
        shell_writer.write(b"echo a-ne''w-one\n")  # the line is open still, and a new shell is there
        while b"a-new-one" not in said:
            said += await shell.read(4096)
        log_writer.close()
        shell_writer.close()

    assert re.search(rb"/dev/pts/\d+", said)
    assert (records[0]["msg"], records[0]["agent-version"]) == ("announce", __version__)
    assert records[0]["config"]["log_vport"] == 1025
    messages = [record["msg"] for record in records]
    assert "this agent has not what is asked for by agent.passfd_listener_port=1027" in messages
    assert any(message.startswith(f"kata-agent {__version__} serves virtio-serial") for message in messages)
    console = [text for _, text in machine.console]
    assert not any("serves virtio-serial" in line for line in console)
    assert any("WARNING kata_agent.ports: debug console: whoever reaches" in line for line in console)


async def test_a_log_that_nobody_reads_stops_nothing(boot: Boot) -> None:
    asked = ("agent.log=debug", "agent.log_vport=1025")
    boot = replace(boot, ports=("agent.log.0",), parameters=(*boot.parameters, *asked))
    async with run(boot) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        stalled = await asyncio.open_unix_connection(machine.sockets / "agent.log.0", limit=1)
        for number in range(200):
            request = CopyFileRequest(path=f"/{number}{'x' * 4000}", file_size=1)
            with pytest.raises(StatusError, match="is not below"):
                await agent.CopyFile(request, timeout=CALL)
        stalled[1].close()


@pytest.fixture
def swap(tmp_path: Path) -> Path:
    """A disk of 64 MiB to swap to."""
    disk = tmp_path / "swap"
    disk.touch()
    os.truncate(disk, 64 * MEBIBYTE)
    subprocess.run(["mkswap", "-q", disk], check=True)
    return disk


async def test_a_disk_becomes_swap_by_its_place_on_the_bus(boot: Boot, swap: Path) -> None:
    async with run(replace(boot, disks=(swap,))) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        before = _items((await _metrics(agent))["kata_guest_meminfo"])["swap_total",]
        await agent.AddSwap(AddSwapRequest(PCIPath=[0x10]), timeout=CALL)
        after = _items((await _metrics(agent))["kata_guest_meminfo"])["swap_total",]

    assert before == 0
    assert 60 * MEBIBYTE < after < 64 * MEBIBYTE


async def test_a_policy_is_put_in_force_and_decides(boot: Boot) -> None:
    rules = ("SetPolicyRequest := true", "GuestDetailsRequest := true", "GetMetricsRequest := false")
    text = "\n".join(["package agent_policy", *rules])
    async with run(boot) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        await agent.SetPolicy(SetPolicyRequest(policy=text), timeout=CALL)
        details = await agent.GetGuestDetails(GuestDetailsRequest(), timeout=CALL)
        with pytest.raises(StatusError, match="GetMetricsRequest is blocked by policy"):
            await agent.GetMetrics(GetMetricsRequest(), timeout=CALL)
        with pytest.raises(StatusError, match="AddSwapRequest: internal error"):
            await agent.AddSwap(AddSwapRequest(PCIPath=[1]), timeout=CALL)

    assert list(details.agent_details.extra_features) == ["agent-policy", "kata-py-offset", "seccomp"]


async def test_files_are_taken_where_nothing_is_shared(boot: Boot) -> None:
    path = "/run/kata-containers/shared/containers/files"
    async with run(boot) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        before = (await agent.GetVolumeStats(VolumeStatsRequest(volume_guest_path="/run"), timeout=CALL)).usage[0].used
        for offset in range(0, 4 * MEBIBYTE, MEBIBYTE):
            request = CopyFileRequest(
                path=f"{path}/data", data=os.urandom(MEBIBYTE), offset=offset, file_size=4 * MEBIBYTE,
                file_mode=0o100600, dir_mode=0o700,
            )  # fmt: skip
            await agent.CopyFile(request, timeout=CALL)
        after = (await agent.GetVolumeStats(VolumeStatsRequest(volume_guest_path=path), timeout=CALL)).usage[0].used

    assert 4 * MEBIBYTE <= after - before < 5 * MEBIBYTE
