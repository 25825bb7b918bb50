"""The real QEMU grows and shrinks: with a guest of a hundred bytes, and with a whole one that takes part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kata_protos import agent_pb2
from kata_protos.agent_ttrpc import AgentClient
from kata_py.hypervisor.api import HypervisorError, Memory, Resizable, Size, Vcpus, VcpuThreads
from kata_py.resource.cgroup import hierarchies, joined, made
from kata_py.ttrpc.client import connect
from kata_qemu.devices.memory import MIB
from kata_qemu.vm import QemuVm
from tests import cgroups
from tests.conformance.hypervisor.cases import CASES
from tests.drivers.journal import ListJournal
from tests.functional.qemu.conftest import Bench
from tests.functional.qemu.stub import Ending

BLOCK = 128
TIMEOUT = 30.0


@pytest.fixture
def large(bench: Bench) -> Bench:
    """A machine that may have four processors and 1 GiB."""
    bench.spec = replace(bench.spec, cpus=Vcpus(1, 4), memory=Memory(128, 1024, 3))
    return bench


def threads(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()}


async def test_processors_and_memory_are_plugged_in_up_to_what_the_machine_may_have(large: Bench) -> None:
    async with large.launch() as vm:
        assert isinstance(vm, Resizable)
        assert vm.size == Size(1, 128)
        assert await vm.resize(Size(2, 200), block=BLOCK) == Size(2, 256)
        assert await vm.resize(Size(3, 256), block=BLOCK) == Size(3, 256)
        assert await vm.resize(Size(99, 9999), block=BLOCK) == Size(4, 1024)
        assert await vm.resize(Size(99, 9999), block=BLOCK) == vm.size == Size(4, 1024)


async def test_a_guest_is_given_no_more_at_once_than_it_can_take_in(large: Bench) -> None:
    large.spec = replace(large.spec, memory=Memory(128, 65536, 3))
    async with large.launch() as vm:
        assert (await vm.resize(Size(1, 60000), block=BLOCK)).memory == 128 + 48 * 128


async def test_memory_ends_with_the_slots(large: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with large.launch() as vm:
        for wanted in (256, 384, 512):
            assert (await vm.resize(Size(1, wanted), block=BLOCK)).memory == wanted
        assert (await vm.resize(Size(1, 640), block=BLOCK)).memory == 512
    assert "all 3 memory_slots are taken" in caplog.text


async def test_the_threads_of_the_processors_are_named_in_their_order(large: Bench) -> None:
    async with large.launch() as vm:
        assert isinstance(vm, VcpuThreads)
        before = await vm.vcpu_threads()
        assert len(before) == 1
        await vm.resize(Size(3, 128), block=BLOCK)
        after = await vm.vcpu_threads()
        assert after[:1] == before
        assert len(set(after)) == 3
        assert set(after) <= threads(vm.pid)


async def test_a_guest_that_does_not_answer_keeps_its_memory(large: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with large.launch() as vm:
        await vm.resize(Size(1, 256), block=BLOCK)
        assert await vm.resize(Size(1, 128), block=BLOCK) == Size(1, 256)
    assert "the guest does not let go of dimm0 within 5 s" in caplog.text


async def test_virtio_mem_of_a_guest_without_the_driver_stays_as_it_is(
    large: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    large.spec = replace(large.spec, memory=Memory(128, 1024, 0, virtio_mem=True))
    async with large.launch() as vm:
        assert await vm.resize(Size(1, 512), block=BLOCK) == Size(1, 128)
    assert "the guest is at 0 of 384 MiB of virtio-mem" in caplog.text


async def test_a_machine_without_slots_takes_no_memory(large: Bench, caplog: pytest.LogCaptureFixture) -> None:
    large.spec = replace(large.spec, memory=Memory(128, 1024, 0))
    async with large.launch() as vm:
        assert await vm.resize(Size(2, 512), block=BLOCK) == Size(2, 128)
    assert "takes no memory while it runs" in caplog.text


async def test_s390x_takes_processors_and_no_memory(large: Bench, caplog: pytest.LogCaptureFixture) -> None:
    large.s390x()
    async with large.launch() as vm:
        assert await vm.resize(Size(3, 512), block=BLOCK) == Size(3, 128)
        assert await vm.resize(Size(1, 128), block=BLOCK) == Size(3, 128)
    assert "takes no memory while it runs" in caplog.text


async def test_a_machine_that_has_ended_cannot_be_resized(large: Bench) -> None:
    large.guest(ending=Ending.POWER_OFF)
    async with large.launch() as vm, asyncio.timeout(10):
        await vm.wait()
        with pytest.raises(HypervisorError, match="monitor is closed"):
            await vm.resize(Size(2, 256), block=BLOCK)


@pytest.mark.root
async def test_qemu_that_the_host_kills_for_want_of_memory_is_told_so(large: Bench) -> None:
    large.config = replace(large.config, enable_mem_prealloc=True)
    [tree] = [tree for tree in hierarchies() if tree.unified or "memory" in tree.controllers]
    path = f"/kata-py-test-{os.getpid()}"
    with made(path, [tree], ListJournal()) as cgroup:
        async with AsyncExitStack() as stack:
            with joined(cgroup, [tree]):  # we are out of it again before it becomes narrow
                vm = await stack.enter_async_context(large.launch())
            cgroups.limit_memory(path, 400 * MIB)
            async with asyncio.timeout(20):
                with pytest.raises(HypervisorError, match="monitor is closed"):
                    await vm.resize(Size(1, 1024), block=BLOCK)
                cause = (await vm.wait()).cause
        assert cause == f"qemu was killed by the host for want of memory: {tree.directory(path)}"


class TestWholeGuest:
    @asynccontextmanager
    async def running(self, top: Path, memory: Memory, *modules: str) -> AsyncIterator[tuple[QemuVm, AgentClient]]:
        top.mkdir()
        case = CASES["qemu"]
        spec = replace(case.spec(top, whole=True), cpus=Vcpus(1, 4, "pmu=off"), memory=memory)
        async with (
            case.driver().launch(spec, ListJournal()) as vm,
            asyncio.timeout(90),
            connect(vm.agent, timeout=60) as client,
        ):
            assert isinstance(vm, QemuVm)
            calls = AgentClient(client)
            request = agent_pb2.CreateSandboxRequest(kernel_modules=[agent_pb2.KernelModule(name=m) for m in modules])
            await calls.CreateSandbox(request, timeout=TIMEOUT)
            yield vm, calls

    async def test_a_processor_that_was_plugged_in_is_let_go(
        self, guest: Path, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with self.running(short_tmp / "cpu", Memory(256, 256)) as (vm, calls):
            monkeypatch.setattr(vm._resizer, "_keeps_cpus", False)  # once is what QEMU survives under TCG
            assert await vm.resize(Size(3, 256), block=BLOCK) == Size(3, 256)
            await calls.OnlineCPUMem(agent_pb2.OnlineCPUMemRequest(nb_cpus=3, cpu_only=True), timeout=TIMEOUT)
            assert await vm.resize(Size(1, 256), block=BLOCK) == Size(1, 256)
            assert len(await vm.vcpu_threads()) == 1

    async def test_under_emulation_processors_stay(self, guest: Path, short_tmp: Path) -> None:
        async with self.running(short_tmp / "stay", Memory(256, 256)) as (vm, _):
            await vm.resize(Size(2, 256), block=BLOCK)
            assert await vm.resize(Size(1, 256), block=BLOCK) == Size(2, 256)

    async def test_virtio_mem_is_taken_and_given_back(self, guest: Path, short_tmp: Path) -> None:
        async with self.running(short_tmp / "mem", Memory(256, 2048, 0, virtio_mem=True), "virtio_mem") as (vm, calls):
            assert (await vm.resize(Size(1, 1000), block=BLOCK)).memory == 1024
            await calls.OnlineCPUMem(agent_pb2.OnlineCPUMemRequest(), timeout=TIMEOUT)
            assert 256 <= (await vm.resize(Size(1, 256), block=BLOCK)).memory < 512
