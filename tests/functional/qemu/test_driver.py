"""The driver with the real QEMU: what makes a machine end, and what is said when it cannot begin."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kata_py.hypervisor.api import (
    Accelerator,
    AgentChannel,
    BlockDevice,
    GuestDevice,
    HypervisorError,
    Nic,
    Ports,
    SharedDirectory,
    VmExit,
)
from kata_py.network.tap import open_tap
from kata_py.resource.undo import Undo
from kata_py.ttrpc.address import SerialAddress
from kata_qemu.parts import Command
from kata_qemu.vm import QemuVm
from tests.drivers.journal import ListJournal
from tests.functional.qemu.conftest import Bench
from tests.functional.qemu.stub import Ending


async def test_a_machine_runs_with_its_share_its_sockets_and_its_stages(bench: Bench) -> None:
    bench.share()
    async with bench.launch() as vm:
        directory = bench.spec.directory
        assert vm.agent == SerialAddress(str(directory / "agent.sock"))
        assert vm.pid == bench.pid_of("qemu")
        assert (directory / "pid").read_text() == f"{vm.pid}\n"
        assert {path.name for path in directory.iterdir()} == {
            "agent.sock", "console.sock", "pid", "qmp.sock", "vhost-fs.sock",
        }  # fmt: skip
        await bench.journal.reached("userland")
        assert [name for name, _, _ in bench.journal.stages] == ["virtiofsd", "qemu", "kernel", "userland"]
        waiting = asyncio.create_task(vm.wait())
    assert await waiting == VmExit("stopped", expected=True, evidence=vm.console_tail())


async def test_people_have_a_monitor_of_their_own_beside_the_shims(bench: Bench) -> None:
    bench.config = replace(bench.config, enable_debug=True, extra_monitor_socket="hmp")
    async with bench.launch(), asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(bench.spec.directory / "extra-monitor.sock")
        writer.write(b"info status\n")
        assert b"VM status: running" in await reader.readuntil(b"running")
        writer.close()


async def test_a_machine_has_the_memory_firmware_and_small_devices_that_the_configuration_names(bench: Bench) -> None:
    bench.config = replace(
        bench.config,
        enable_mem_prealloc=True,
        firmware=Path("/usr/share/seabios/bios-256k.bin"),
        entropy_source=Path("/dev/urandom"),
        reclaim_guest_freed_memory=True,
        seccompsandbox="on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
        line = (Path("/proc") / str(vm.pid) / "cmdline").read_bytes().decode().split("\0")
    assert line[line.index("-bios") + 1] == "/usr/share/seabios/bios-256k.bin"
    told = " ".join(line)
    assert "prealloc=on" in told
    assert "virtio-rng-pci" in told
    assert "free-page-reporting=on" in told


@pytest.mark.parametrize(
    "tuning",
    [
        {"block_device_aio": "threads"},
        {"block_device_aio": "native", "block_device_logical_sector_size": 4096},
        {"block_device_aio": "io_uring", "block_device_cache_set": True, "block_device_cache_direct": True},
        {"block_device_cache_set": True, "block_device_cache_noflush": True, "block_device_physical_sector_size": 4096},
    ],
)
async def test_qemu_takes_a_disk_however_the_configuration_has_it_read(bench: Bench, tuning: dict[str, Any]) -> None:
    (bench.place / "disk").write_bytes(bytes(1 << 20))
    bench.config = replace(bench.config, **tuning)
    bench.spec = replace(bench.spec, devices=(BlockDevice("early", bench.place / "disk", read_only=True),))
    async with bench.launch() as vm:
        assert (await vm.attach(BlockDevice("late", bench.place / "disk", read_only=True))).id == "disk-late"


async def test_huge_pages_that_are_not_there_are_counted_with_the_fix(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kata_qemu.driver.free_huge_pages", lambda: 64)
    bench.config = replace(bench.config, enable_hugepages=True)
    with pytest.raises(
        HypervisorError, match=r"needs 128 MiB of huge pages, and 64 MiB are free \(raise vm.nr_hugepages"
    ):
        async with bench.launch():
            raise AssertionError("launched")


async def test_the_end_of_qemu_is_known_at_once_to_all_who_wait(bench: Bench) -> None:
    bench.share()
    async with bench.launch() as vm, asyncio.timeout(2):
        waiting = [asyncio.create_task(vm.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        os.kill(vm.pid, signal.SIGKILL)
        for waiter in waiting[1:]:
            exit = await waiter
            assert (exit.cause, exit.expected) == ("qemu was killed by signal 9", False)
        assert waiting[0].cancelled()


async def test_the_end_of_virtiofsd_ends_the_machine_with_that_cause(bench: Bench) -> None:
    bench.share()
    async with bench.launch() as vm, asyncio.timeout(2):
        os.kill(bench.pid_of("virtiofsd"), signal.SIGKILL)
        assert (await vm.wait()).cause == "virtiofsd was killed by signal 9"


@pytest.mark.parametrize(
    ("ending", "lines", "cause"),
    [
        (Ending.POWER_OFF, ["bye"], "guest powered off"),
        (Ending.RESET, ["bye"], "guest rebooted"),
        (
            Ending.RESET,
            ["[1.0] Kernel panic - not syncing: No working init found.", "bye"],
            "guest rebooted after 'Kernel panic - not syncing: No working init found.'",
        ),
    ],
)
async def test_a_guest_that_ends_by_itself_says_how(bench: Bench, ending: Ending, lines: list[str], cause: str) -> None:
    bench.guest(*lines, ending=ending)
    bench.share()  # its daemon sees QEMU go, and goes before it
    async with bench.launch() as vm, asyncio.timeout(20):
        exit = await vm.wait()
        assert (exit.cause, exit.expected) == (cause, False)
        assert exit.evidence == tuple(lines)


async def test_qemu_and_its_words_are_in_the_log_as_the_guide_promises(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bench.config = replace(bench.config, machine_accelerators="hpet=on")
    bench.spec = replace(bench.spec, cpus=replace(bench.spec.cpus, features="vmx=on"))  # TCG warns: it has none
    async with bench.launch() as vm:
        await bench.journal.reached("userland")
    told = {record.getMessage(): record for record in caplog.records}
    for line in (f"Start logging QEMU (qemuPid={vm.pid})", f"Stop logging QEMU (qemuPid={vm.pid})"):
        assert told[line].levelno == logging.INFO
        assert told[line].__dict__["qemuPid"] == vm.pid
    warning = next(record for text, record in told.items() if "doesn't support requested feature" in text)
    assert warning.levelno == logging.WARNING
    assert warning.__dict__["qemuPid"] == vm.pid
    assert "reading guest console" in told


async def test_why_a_guest_is_emulated_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.s390x()
    driver = bench.driver
    for _ in range(2):
        async with driver.launch(bench.spec, bench.journal):
            pass
    told = [
        text for text in caplog.messages if text.startswith("guests are emulated, which is slow: the guest is s390x")
    ]
    assert len(told) == 1


async def _iothread(vm: QemuVm, id: str) -> object:
    path = {"path": f"/machine/peripheral/{id}/virtio-backend", "property": "iothread"}
    return await vm._monitor.execute(Command("qom-get", path))


class TestAttach:
    async def test_devices_are_plugged_in_behind_a_bridge_until_its_slots_are_taken(self, bench: Bench) -> None:
        bench.share()
        (bench.place / "disk").write_bytes(bytes(1 << 20))
        (bench.place / "more").mkdir()
        async with bench.launch() as vm:
            disk = BlockDevice("scratch", bench.place / "disk")
            assert await vm.attach(disk) == GuestDevice("disk-scratch", "03/01")
            with pytest.raises(HypervisorError, match=r"blockdev-add: .*disk-scratch"):
                await vm.attach(disk)  # its id is taken, and the slot stays free
            assert await vm.attach(SharedDirectory("more", bench.place / "more")) == GuestDevice("share1", "03/02")
            kernel = bench.spec.boot.kernel
            for number in range(3, 31):
                given = await vm.attach(BlockDevice(f"disk{number}", kernel, read_only=True))
                assert given.address == f"03/{number:02x}"
            with pytest.raises(HypervisorError, match=r"no place is left to plug in .* \(raise `default_bridges`"):
                await vm.attach(BlockDevice("last", kernel, read_only=True))

    @pytest.mark.parametrize("threads", [False, True])
    async def test_scsi_disks_are_plugged_in_at_the_controller_and_taken_out(self, bench: Bench, threads: bool) -> None:
        bench.config = replace(bench.config, block_device_driver="virtio-scsi", enable_iothreads=threads)
        (bench.place / "disk").write_bytes(bytes(1 << 20))
        async with bench.launch() as vm:
            first = await vm.attach(BlockDevice("one", bench.place / "disk"))
            second = await vm.attach(BlockDevice("two", bench.spec.boot.kernel, read_only=True))
            assert [(each.driver, each.address) for each in (first, second)] == [("scsi", "0:0"), ("scsi", "0:1")]
            await vm.detach(first)
            with pytest.raises(HypervisorError, match="was not plugged in"):
                await vm.detach(first)

    async def test_threads_of_their_own_serve_disks_in_turns(self, bench: Bench) -> None:
        bench.config = replace(bench.config, indep_iothreads=2)
        async with bench.launch() as vm:
            for number in range(3):
                await vm.attach(BlockDevice(f"disk{number}", bench.spec.boot.kernel, read_only=True))
            assert [await _iothread(vm, f"disk-disk{number}") for number in range(3)] == [
                "/objects/disk-thread-0", "/objects/disk-thread-1", "/objects/disk-thread-0",
            ]  # fmt: skip

    async def test_a_disk_of_another_kind_of_machine_is_refused_with_the_key(self, bench: Bench) -> None:
        bench.config = replace(bench.config, block_device_driver="virtio-blk-ccw")
        with pytest.raises(HypervisorError, match=r"q35 has no virtio-blk-ccw \(set `block_device_driver`"):
            async with bench.launch():
                raise AssertionError("launched")

    @pytest.mark.parametrize("queues", [1, 2])
    async def test_an_interface_is_there_from_the_start_or_plugged_in(self, bench: Bench, queues: int) -> None:
        with ExitStack() as stack:
            nics = [
                Nic(f"network-{number}", f"02:00:00:00:00:0{number}", open_tap(f"kpq{number}", queues, stack))
                for number in range(2)
            ]
            bench.spec = replace(bench.spec, devices=(nics[0],))
            async with bench.launch() as vm:
                assert await vm.attach(nics[1]) == GuestDevice("virtio-network-1", "03/01")
                filters = await vm._monitor.execute(Command("query-rx-filter"))
                assert isinstance(filters, list)
                assert {each["name"]: each["main-mac"] for each in filters} == {
                    "virtio-network-0": "02:00:00:00:00:00", "virtio-network-1": "02:00:00:00:00:01",
                }  # fmt: skip

    async def test_an_interface_that_is_refused_leaves_nothing_in_the_machine(self, bench: Bench) -> None:
        with ExitStack() as stack:
            good = Nic("network-0", "02:00:00:00:00:01", open_tap("kpq0", 2, stack))
            async with bench.launch() as vm:
                for _ in range(2):  # were the host's side still there, the second fault would be another
                    with pytest.raises(HypervisorError, match=r"device_add: .*mac"):
                        await vm.attach(replace(good, mac="no address"))
                assert (await vm.attach(good)).id == "virtio-network-0"
                with pytest.raises(HypervisorError, match=r"netdev_add: Duplicate ID 'network-0'"):
                    await vm.attach(good)
                told = await vm._monitor.execute(Command("human-monitor-command", {"command-line": "info network"}))
                assert "network-0: index=0,type=tap" in str(told)  # and the first is as it was

    async def test_a_share_that_came_later_is_as_vital_as_one_from_the_start(self, bench: Bench) -> None:
        async with bench.launch() as vm, asyncio.timeout(5):
            await vm.attach(SharedDirectory("late", bench.place))
            os.kill(bench.pid_of("virtiofsd"), signal.SIGKILL)
            assert (await vm.wait()).cause == "virtiofsd was killed by signal 9"

    async def test_a_device_that_is_refused_leaves_nothing_in_the_machine(self, bench: Bench) -> None:
        (bench.place / "disk").write_bytes(bytes(1 << 20))
        async with bench.launch() as vm:
            for _ in range(2):  # were the node still there, the second fault would be another
                with pytest.raises(HypervisorError, match=r"device_add: .*tag"):
                    await vm.attach(SharedDirectory("x" * 37, bench.place))
                assert not [entry for entry in bench.journal.entries if getattr(entry, "name", "") == "virtiofsd"]
            assert (await vm.attach(BlockDevice("d", bench.place / "disk"))).address == "02/01"

    @pytest.mark.parametrize(
        ("device", "message"),
        [
            (BlockDevice("a" * 21, Path("/dev/null")), "is not 20 letters, digits or hyphens at most"),
            (BlockDevice("a,b", Path("/dev/null")), "disk id 'a,b' is not"),
            (BlockDevice("a", Path("/no/such/disk")), "no image or block device at /no/such/disk"),
            (SharedDirectory("a", Path("/no/such/dir")), "virtiofsd: there is no directory /no/such/dir to share"),
        ],
    )
    async def test_a_device_that_cannot_be_is_told(
        self, bench: Bench, device: BlockDevice | SharedDirectory, message: str
    ) -> None:
        async with bench.launch() as vm:
            with pytest.raises(HypervisorError, match=message):
                await vm.attach(device)

    async def test_a_machine_that_has_ended_takes_no_more(self, bench: Bench) -> None:
        bench.guest(ending=Ending.POWER_OFF)
        async with bench.launch() as vm, asyncio.timeout(10):
            await vm.wait()
            with pytest.raises(HypervisorError, match="the machine has ended: guest powered off"):
                await vm.attach(SharedDirectory("late", bench.place))


class TestBadInput:
    @pytest.mark.parametrize(
        ("config", "boot", "message"),
        [
            ({"path": Path("/no/qemu")}, {}, r"/no/qemu does not exist \(correct `path` in .*toml, or install qemu"),
            ({"path": Path("/etc/passwd")}, {}, r"/etc/passwd is not executable \(correct `path`"),
            ({}, {"kernel": Path("/no/kernel")}, r"/no/kernel does not exist \(correct `kernel` .* `make guest`"),
            ({}, {"kernel": Path("/etc")}, r"/etc is not a file \(correct `kernel`"),
            ({}, {"initramfs": Path("/no/initramfs")}, r"/no/initramfs does not exist \(correct `initramfs`"),
            ({}, {"image": Path("/no/image")}, r"/no/image does not exist \(correct `image`"),
            ({"virtio_fs_daemon": Path("/no/daemon")}, {}, r"virtiofsd: /no/daemon does not exist .*virtio_fs_daemon"),
        ],
    )
    async def test_a_missing_file_is_named_with_its_key_and_the_fix(
        self, bench: Bench, config: dict[str, Any], boot: dict[str, Any], message: str
    ) -> None:
        bench.share()
        bench.config = replace(bench.config, **config)
        bench.spec = replace(bench.spec, boot=replace(bench.spec.boot, **boot))
        with pytest.raises(HypervisorError, match=message):
            async with bench.launch():
                raise AssertionError("launched")
        assert bench.journal.made == []

    async def test_qemu_that_exits_at_once_is_told_with_its_last_words(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        bench.share()
        bench.config = replace(bench.config, machine_accelerators="colour=red")
        with pytest.raises(HypervisorError, match=r"qemu: qemu exited with status 1.*colour") as failure:
            async with bench.launch():
                raise AssertionError("launched")
        assert "colour" in failure.value.evidence[-1]
        assert any(text.startswith("running qemu: /usr/bin/qemu-system-x86_64 -name") for text in caplog.messages)

    async def test_a_daemon_that_dies_before_qemu_is_up_is_the_one_that_is_named(self, bench: Bench) -> None:
        daemon = bench.place / "virtiofsd"
        daemon.write_text("#!/bin/sh\ntest $1 = --version && echo 'virtiofsd 1.0' && exit\necho oh no >&2; exit 3\n")
        daemon.chmod(0o755)
        bench.share()
        bench.config = replace(bench.config, virtio_fs_daemon=daemon)
        with pytest.raises(HypervisorError, match=r"virtiofsd: virtiofsd exited with status 3.*oh no"):
            async with bench.launch():
                raise AssertionError("launched")

    async def test_a_socket_path_that_is_too_long_is_named(self, bench: Bench) -> None:
        bench.spec = replace(bench.spec, directory=bench.place / "vm" / ("x" * 100))
        with pytest.raises(HypervisorError, match=r"socket path too long: .*/qmp.sock has \d+ bytes"):
            async with bench.launch():
                raise AssertionError("launched")

    async def test_a_directory_that_is_there_already_is_another_machines_and_stays(self, bench: Bench) -> None:
        bench.spec.directory.mkdir(parents=True)
        with pytest.raises(HypervisorError, match="pod1 is there already"):
            async with bench.launch():
                raise AssertionError("launched")
        bench.spec.directory.rmdir()

    async def test_a_directory_that_cannot_be_made_is_told(self, bench: Bench) -> None:
        bench.spec = replace(bench.spec, directory=Path("/proc/no/machines/here"))
        with pytest.raises(HypervisorError, match=r"qemu: cannot start the machine: .*/proc/no"):
            async with bench.launch():
                raise AssertionError("launched")

    async def test_an_unknown_machine_type_or_channel_is_told_before_anything_is_made(self, bench: Bench) -> None:
        for spec, message in (
            (replace(bench.spec, machine="pc"), "unknown machine type 'pc'"),
            (replace(bench.spec, agent_channel=AgentChannel.VSOCK), "agent_channel is vsock, but"),
            (replace(bench.spec, machine="s390-ccw-virtio", accelerator=Accelerator.KVM), "the guest is s390x"),
        ):
            bench.spec = spec
            with pytest.raises(HypervisorError, match=message):
                async with bench.launch():
                    raise AssertionError("launched")
            bench.spec = replace(spec, machine="", agent_channel=AgentChannel.AUTO, accelerator=Accelerator.AUTO)


@pytest.mark.parametrize("calls", range(1, 6))
async def test_a_launch_cancelled_at_any_entry_of_its_journal_leaves_nothing(bench: Bench, calls: int) -> None:
    bench.share()

    class Cancelling(ListJournal):
        """Has whoever launches cancelled by its nth call."""

        def intend(self, undo: Undo) -> None:
            super().intend(undo)
            self.called()

        def stage(self, name: str, began: int, ended: int) -> None:
            super().stage(name, began, ended)
            self.called()

        def called(self) -> None:
            nonlocal calls
            calls -= 1
            if calls == 0:
                launching.cancel()

    async def hold() -> None:
        async with bench.launch():
            await asyncio.Event().wait()

    bench.journal = Cancelling()
    launching = asyncio.create_task(hold())
    async with asyncio.timeout(20):
        await asyncio.wait([launching])
    assert launching.cancelled()


async def test_an_s390x_machine_starts_with_a_share(bench: Bench) -> None:
    bench.share()
    bench.s390x()
    async with bench.launch() as vm:
        assert await vm.attach(BlockDevice("d", bench.spec.boot.kernel)) == GuestDevice("disk-d", "0.0.0003", "blk-ccw")


async def test_an_s390x_machine_has_interfaces_from_the_start_and_later(bench: Bench) -> None:
    bench.s390x()
    with ExitStack() as stack:
        first, second = (
            Nic(f"network-{number}", f"02:00:00:00:00:0{number}", open_tap(f"kpz{number}", 2, stack))
            for number in range(2)
        )
        bench.spec = replace(bench.spec, devices=(first,))
        async with bench.launch() as vm:
            assert await vm.attach(second) == GuestDevice("virtio-network-1", "0.0.0003", "blk-ccw")


async def test_a_connection_to_the_agents_port_can_be_made_before_the_guest_is_up(bench: Bench) -> None:
    async with bench.launch():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(bench.spec.directory / "agent.sock"))
            sock.send(b"early")


@pytest.mark.parametrize("s390x", [False, True])
async def test_a_machine_that_is_debugged_has_a_socket_for_its_agents_log_and_for_a_shell(
    bench: Bench, s390x: bool
) -> None:
    if s390x:
        bench.s390x()
    bench.spec = replace(
        bench.spec, agent_channel=AgentChannel.VIRTIO_SERIAL, agent_log=True, debug_console=True
    )  # fmt: skip
    async with bench.launch() as vm:
        directory = bench.spec.directory
        log, console = directory / "agent-log.sock", directory / "debug-console.sock"
        assert vm.ports == Ports(SerialAddress(str(log)), SerialAddress(str(console)))
        for path in (log, console):
            _, writer = await asyncio.open_unix_connection(path)
            writer.close()


async def test_a_disk_that_was_plugged_in_grows_and_nothing_else_does(bench: Bench) -> None:
    disk = bench.place / "disk"
    disk.write_bytes(bytes(1 << 20))
    async with bench.launch() as vm:
        plugged = await vm.attach(BlockDevice("grows", disk))
        await vm.grow_disk(plugged, 4 << 20)
        assert disk.stat().st_size == 4 << 20
        with pytest.raises(HypervisorError, match="disk-other was not plugged in"):
            await vm.grow_disk(GuestDevice("disk-other"), 8 << 20)
