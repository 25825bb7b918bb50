"""Where a pod's processes live on the host: a machine that is a sleeping process, and the host's real cgroups."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from kata_py.config.model import Configuration, HypervisorConfig, RuntimeConfig
from kata_py.hypervisor.api import HypervisorError, Vm
from kata_py.oci.spec import Spec
from kata_py.resource.cgroup import Cgroup, Hierarchy, hierarchies, made, membership
from kata_py.sandbox.placement import CgroupPlan, Placement, own_devices, placed
from tests import cgroups
from tests.drivers.journal import ListJournal

TOP = f"/kata-py-test-{os.getpid()}"
PLAN = CgroupPlan(f"{TOP}/kata_pod", f"{TOP}-overhead/pod", ("c 1:3 rwm",))


@dataclass
class Machine:
    """Its processors run in these threads."""

    threads: Sequence[int]
    error: HypervisorError | None = None

    async def vcpu_threads(self) -> tuple[int, ...]:
        if self.error is not None:
            raise self.error
        return tuple(self.threads)


@pytest.fixture
def trees() -> tuple[Hierarchy, ...]:
    return hierarchies()


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    """Two processes of one thread each, which stand for threads."""
    processes = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(2)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def plan(spec: dict[str, Any], **runtime: Any) -> CgroupPlan:
    configuration = Configuration(HypervisorConfig("qemu"), Path("/x"), runtime=RuntimeConfig(**runtime))
    return CgroupPlan.of(configuration, cast(Spec, spec), "sid")


def test_paths_devices_and_pinning_are_as_spec_and_configuration_say() -> None:
    devices = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "b", "major": 8},
        {"allow": True, "access": "rwm"},
    ]
    spec = {"linux": {"cgroupsPath": "/kubepods/pod1/abc", "resources": {"devices": devices}}}
    rules = ("c 1:3 rw", "b 8:* rwm", "a *:* rwm")
    assert plan(spec) == CgroupPlan("/kubepods/pod1/kata_abc", "/kata_overhead/sid", rules)
    assert plan(spec, sandbox_cgroup_only=True, enable_vcpus_pinning=True) == CgroupPlan(
        "/kubepods/pod1/kata_abc", "", rules, pinning=True
    )
    assert plan({}) == CgroupPlan("/kata_sid", "/kata_overhead/sid", ())


def test_a_machine_needs_the_devices_that_the_host_has() -> None:
    rules = own_devices(with_shim=False)
    assert "c 1:3 rwm" in rules
    assert "c 136:* rwm" in rules
    assert "c 5:2 rwm" not in rules
    assert "c 5:2 rwm" in own_devices(with_shim=True)


def test_a_host_without_them_has_ptys_only(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/devices").write_text("Character devices:\n  1 mem\n240 vfio\n")
    assert own_devices(with_shim=False, root=tmp_path) == ["c 240:* rwm", "c 136:* rwm"]


@pytest.mark.root
class TestReal:
    async def test_shim_and_hypervisor_live_apart_and_the_processors_in_the_pod(
        self, trees: tuple[Hierarchy, ...], sleepers: list[int]
    ) -> None:
        before, elsewhere = membership(os.getpid(), trees), membership(sleepers[0], trees)
        pod = {tree: tree.directory(PLAN.path) for tree in trees}
        apart = {tree: tree.directory(PLAN.overhead) for tree in trees}
        journal = ListJournal()
        async with placed(PLAN, journal) as placement:
            # In v2 a thread is where its process is, and so both are in the pod's.
            assert membership(os.getpid(), trees) == (pod if cgroups.unified() else apart)
            await placement.settle(cast(Vm, Machine(sleepers)), [])
            for pid in sleepers:
                assert membership(pid, trees) == (elsewhere if cgroups.unified() else pod)
            [devices] = [tree for tree in trees if tree.unified or "devices" in tree.controllers]
            script = f"echo 0 > {devices.directory(PLAN.path)}/cgroup.procs; true < /dev/null; true < /dev/full"
            tried = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stderr=subprocess.PIPE)
            _, told = await tried.communicate()
            assert tried.returncode != 0
            assert b"/dev/full" in told
        assert membership(os.getpid(), trees) == before
        assert journal.entries == []
        assert not any(tree.directory(path).exists() for tree in trees for path in (TOP, f"{TOP}-overhead"))

    async def test_a_parent_goes_with_the_last_sandbox_in_it(self, trees: tuple[Hierarchy, ...]) -> None:
        journals = ListJournal(), ListJournal()
        places = [tree.directory(f"{TOP}-overhead") for tree in trees]
        with ExitStack() as second:
            with ExitStack() as first:
                for stack, journal, id in zip((first, second), journals, ("first", "second"), strict=True):
                    stack.enter_context(made(f"{TOP}-overhead/{id}", trees, journal))
            assert all(place.exists() for place in places)
        assert not any(place.exists() for place in places)
        assert [journal.entries for journal in journals] == [[], []]

    async def test_or_all_of_it_in_the_pod(self, trees: tuple[Hierarchy, ...], sleepers: list[int]) -> None:
        elsewhere = membership(sleepers[0], trees)
        async with placed(replace(PLAN, overhead=""), ListJournal()) as placement:
            assert membership(os.getpid(), trees) == {tree: tree.directory(PLAN.path) for tree in trees}
            Path("/dev/null").write_bytes(os.urandom(1))
            await placement.settle(cast(Vm, Machine(sleepers)), [])
            assert membership(sleepers[0], trees) == elsewhere

    async def test_what_a_container_is_given_may_be_used_from_then_on(self, trees: tuple[Hierarchy, ...]) -> None:
        [tree] = [tree for tree in trees if tree.unified or "devices" in tree.controllers]
        script = f"echo 0 > {tree.directory(PLAN.path)}/cgroup.procs; true < /dev/full"

        async def can() -> bool:
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stderr=subprocess.DEVNULL)
            return await process.wait() == 0

        async with placed(replace(PLAN, overhead=""), ListJournal()) as placement:
            assert not await can()
            await placement.admit([Path("/dev/full"), Path("/etc/passwd"), Path("/dev/no such device")])
            assert await can()

    async def test_it_runs_on_the_processors_that_its_containers_name(self, trees: tuple[Hierarchy, ...]) -> None:
        [tree] = [tree for tree in trees if tree.unified or "cpuset" in tree.controllers]
        file = tree.directory(PLAN.path) / ("cpuset.cpus.effective" if tree.unified else "cpuset.cpus")
        async with placed(PLAN, ListJournal()) as placement:
            everything = file.read_text()
            vm = cast(Vm, Machine([]))
            await placement.settle(vm, [{"cpu": {"cpus": "0"}}, {}])
            assert file.read_text() == "0\n"
            await placement.settle(vm, [{}])
            assert file.read_text() == everything

    async def test_what_the_host_refuses_is_warned_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        async with placed(replace(PLAN, pinning=True), ListJournal()) as placement:
            for cpus in ("9000", "9001"):
                await placement.settle(cast(Vm, Machine([])), [{"cpu": {"cpus": cpus}}])
            for _ in range(2):
                await placement.settle(cast(Vm, Machine([], HypervisorError("qemu", "gone"))), [])
        assert caplog.text.count("the pod's processors and memory nodes are not set") == 1
        assert caplog.text.count("the guest's processors are not where they belong: qemu: gone") == 1


class TestPinning:
    @pytest.fixture
    def placement(self) -> Placement:
        return Placement(Cgroup("/none", {}), threads_apart=False, pinning=True)

    async def test_each_processor_gets_one_of_the_hosts_in_order(
        self, placement: Placement, sleepers: list[int]
    ) -> None:
        await placement.settle(cast(Vm, Machine(sleepers)), [{"cpu": {"cpus": "0-1"}}])
        assert [os.sched_getaffinity(pid) for pid in sleepers] == [{0}, {1}]
        await placement.settle(cast(Vm, Machine(sleepers)), [{"cpu": {"cpus": "0"}}])
        assert [os.sched_getaffinity(pid) for pid in sleepers] == [{0}, {0}]

    async def test_none_is_pinned_where_the_numbers_differ(self, placement: Placement, sleepers: list[int]) -> None:
        before = os.sched_getaffinity(sleepers[0])
        await placement.settle(cast(Vm, Machine(sleepers)), [{"cpu": {"cpus": "0"}}])
        assert os.sched_getaffinity(sleepers[0]) == before

    async def test_all_are_free_again_without_a_set(self, placement: Placement, sleepers: list[int]) -> None:
        before = os.sched_getaffinity(sleepers[0])
        await placement.settle(cast(Vm, Machine(sleepers)), [{"cpu": {"cpus": "0-1"}}])
        await placement.settle(cast(Vm, Machine(sleepers)), [])
        assert [os.sched_getaffinity(pid) for pid in sleepers] == [before, before]
