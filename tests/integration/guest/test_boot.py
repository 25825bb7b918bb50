"""The built guest in a machine of its own, under emulation."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.guest_machine import GUEST, Boot, Machine, run
from bench.guest_machine import guest as built
from kata_agent import __version__
from kata_protos.agent_pb2 import (
    CreateSandboxRequest,
    DestroySandboxRequest,
    GuestDetailsRequest,
    KernelModule,
    Storage,
)
from kata_protos.agent_ttrpc import AgentClient

pytestmark = pytest.mark.qemu

USED_LIMIT = 110 << 20  # bytes an idle guest may take
CALL = 30.0  # seconds


@pytest.fixture
def boot(guest: Path) -> Boot:
    """The built guest, on little memory."""
    assert guest == GUEST
    return replace(built(), memory=512)


async def powered_off(machine: Machine) -> int:
    async with asyncio.timeout(CALL):
        return await machine.process.wait()


async def test_the_guest_boots_into_the_agent_which_is_pid_1(boot: Boot) -> None:
    async with run(boot) as machine, machine.agent() as (client, answered):
        assert await machine.said("kata-boot: initramfs") < await machine.said("kata-boot: agent") < answered
        details = await AgentClient(client).GetGuestDetails(GuestDetailsRequest(), timeout=CALL)
        assert details.agent_details.init_daemon


async def test_an_idle_guest_uses_little_memory_and_turns_off_with_its_sandbox(boot: Boot) -> None:
    async with run(replace(boot, memory=2048)) as machine, machine.agent() as (client, _):
        agent = AgentClient(client)
        request = CreateSandboxRequest(sandbox_id="idle", kernel_modules=[KernelModule(name="virtio_balloon")])
        await agent.CreateSandbox(request, timeout=CALL)
        assert await machine.used_memory() < USED_LIMIT
        await agent.DestroySandbox(DestroySandboxRequest(), timeout=CALL)
        assert await powered_off(machine) == 0


async def test_the_kernel_loads_a_file_system_when_it_is_first_mounted(boot: Boot) -> None:
    overlay = Storage(
        driver="ephemeral",
        source="overlay",
        fstype="overlay",
        options=["lowerdir=/etc:/usr"],
        mount_point="/run/kata-containers/overlay",
    )
    async with run(boot) as machine, machine.agent() as (client, _):
        await AgentClient(client).CreateSandbox(CreateSandboxRequest(sandbox_id="fs", storages=[overlay]), timeout=CALL)


async def test_without_a_serial_port_the_agent_listens_on_vsock(boot: Boot) -> None:
    async with run(replace(boot, address="vsock://-1:1024")) as machine:
        await machine.said(f"INFO kata_agent.server: kata-agent {__version__} serves vsock://-1:1024")


async def test_a_root_that_is_not_there_is_named_and_the_machine_ends(boot: Boot) -> None:
    async with run(replace(boot, root="/dev/vdb")) as machine:
        await machine.said("initramfs: no erofs on /dev/vdb; disks: /dev/vda")
        assert await powered_off(machine) == 0


def test_the_manifest_tells_what_the_guest_is_made_of(guest: Path) -> None:
    manifest = json.loads((guest / "manifest.json").read_text())
    assert {"crun", "python3-protobuf", "busybox-static"} <= {package["name"] for package in manifest["packages"]}
    sizes = {name: (guest / name).stat().st_size for name in manifest["files"]}
    assert {name: file["size"] for name, file in manifest["files"].items()} == sizes
    assert sizes["kata-containers.img"] <= 64 << 20
    assert sizes["initramfs.img"] <= 4 << 20
