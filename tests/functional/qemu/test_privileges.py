"""What is left to the real QEMU and virtiofsd while a machine runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kata_py.hypervisor.api import BlockDevice, HypervisorError, SharedDirectory
from kata_py.resource.confinement import FIRST_USER, LAST_USER
from tests.functional.qemu.conftest import Bench


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def limits(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.removeprefix(name).split()[:2] for line in lines if line.startswith(name))


def namespace(pid: int | str, kind: str = "net") -> int:
    return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino


def rootless(bench: Bench) -> None:
    bench.place.parent.chmod(0o711)
    bench.config = replace(bench.config, rootless=True)


async def test_qemu_has_no_capabilities_gains_none_and_is_filtered(bench: Bench) -> None:
    bench.share()
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        seen = status(vm.pid)
        assert {seen[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {f"{0:016x}"}
        assert (seen["NoNewPrivs"], seen["Seccomp"]) == (["1"], ["2"])
        assert os.getsid(vm.pid) == vm.pid
        assert limits(vm.pid, "Max core file size") == ["0", "0"]


async def test_qemu_inherits_nothing_but_what_it_is_passed(bench: Bench, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        async with bench.launch() as vm:
            await bench.journal.reached("userland")
            opened = {str(file.readlink()) for file in Path(f"/proc/{vm.pid}/fd").iterdir()}
    ours = {"/dev/null", str(bench.spec.directory / "pid")}
    assert {name for name in opened - ours if name.startswith("/") and not name.startswith("/memfd:")} == set()


async def test_qemu_reaches_no_network_of_the_host(bench: Bench) -> None:
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        assert namespace(vm.pid) != namespace("self")
        links = Path(f"/proc/{vm.pid}/net/dev").read_text().splitlines()[2:]
        assert [link.split(":")[0].strip() for link in links] == ["lo"]


async def test_qemu_is_in_the_pods_network_where_there_is_one(bench: Bench) -> None:
    bench.spec = replace(bench.spec, network_namespace=Path("/proc/self/ns/net"))
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        assert namespace(vm.pid) == namespace("self")


async def test_a_network_namespace_that_is_not_there_ends_the_launch_with_its_path(bench: Bench) -> None:
    bench.spec = replace(bench.spec, network_namespace=Path("/run/netns/missing"))
    with pytest.raises(HypervisorError, match="/run/netns/missing"):
        async with bench.launch():
            raise AssertionError("launched")


async def test_virtiofsd_keeps_what_files_need_and_nothing_else(bench: Bench) -> None:
    bench.share()
    async with bench.launch():
        await bench.journal.reached("userland")
        outer = bench.pid_of("virtiofsd")
        [inner] = [int(pid) for pid in Path(f"/proc/{outer}/task/{outer}/children").read_text().split()]
        for pid in (outer, inner):
            seen = status(pid)
            assert seen["NoNewPrivs"] == ["1"]
            # net_admin, net_raw, sys_module, sys_rawio, sys_ptrace, sys_boot, sys_time
            assert not any(int(seen["CapBnd"][0], 16) >> bit & 1 for bit in (12, 13, 16, 17, 19, 22, 25))
        assert namespace(inner, "mnt") != namespace("self", "mnt")
        assert namespace(inner, "pid") != namespace("self", "pid")
        assert namespace(inner) != namespace("self")
        assert not int(status(inner)["CapEff"][0], 16) >> 21 & 1  # sys_admin


async def test_rootless_qemu_runs_as_a_user_of_its_own_and_takes_devices(bench: Bench) -> None:
    rootless(bench)
    bench.share()
    late = bench.place / "late"
    late.mkdir()
    disk = bench.place / "disk"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(0o644)
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        seen = status(vm.pid)
        [user] = set(seen["Uid"])
        assert FIRST_USER <= int(user) <= LAST_USER
        assert set(seen["Gid"]) == {user}
        assert seen["Groups"] == []
        assert seen["CapEff"] == [f"{0:016x}"]
        assert (await vm.attach(SharedDirectory("late", late))).id
        assert (await vm.attach(BlockDevice("data", disk, read_only=True))).id == "disk-data"
        directory = bench.spec.directory
        assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (0, 0o710)
        assert (directory / "pid").read_text() == f"{vm.pid}\n"
        assert {path.name for path in directory.iterdir() if path.stat().st_uid == int(user)} == {
            "pid", "vhost-fs.sock", "vhost-fs-1.sock",
        }  # fmt: skip


async def test_two_rootless_machines_are_two_users(bench: Bench) -> None:
    rootless(bench)
    other = replace(bench.spec, sandbox_id="pod2", directory=bench.spec.directory.with_name("pod2"))
    async with bench.launch() as one, bench.driver.launch(other, bench.journal) as two:
        assert status(one.pid)["Uid"] != status(two.pid)["Uid"]


async def test_a_rootless_machine_that_is_killed_leaves_a_record_that_removes_all(bench: Bench) -> None:
    rootless(bench)
    async with bench.launch() as vm:
        for undo in reversed(bench.journal.entries):
            undo.perform()
        assert (await vm.wait()).cause == "qemu was killed by signal 9"
        assert not bench.spec.directory.exists()


async def test_a_kernel_that_others_cannot_read_is_named_with_the_fix(bench: Bench) -> None:
    rootless(bench)
    bench.spec.boot.kernel.chmod(0o600)
    with pytest.raises(HypervisorError, match=r"so QEMU cannot read .*kernel \(chmod o\+rx .*kernel, or set rootless"):
        async with bench.launch():
            raise AssertionError("launched")


async def test_a_helper_that_is_missing_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HypervisorError, match="unshare: not found"):
        async with bench.launch():
            raise AssertionError("launched")
