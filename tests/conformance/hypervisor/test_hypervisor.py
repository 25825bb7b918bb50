"""What every hypervisor driver must do. Each test runs for each driver."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kata_protos import health_pb2
from kata_protos.health_ttrpc import HealthClient
from kata_py.hypervisor.api import HypervisorError, VmSpec
from kata_py.network.model import Model
from kata_py.network.network import open_network
from kata_py.resource import mount
from kata_py.resource.process import start_time
from kata_py.resource.undo import KillProcess, Undo
from kata_py.sandbox.record import Record
from kata_py.ttrpc.client import connect
from tests.conformance.hypervisor.cases import CASES, SANDBOX, Case
from tests.conftest import REPOSITORY
from tests.drivers.journal import ListJournal
from tests.netns import join, pod

pytestmark = pytest.mark.root

AT_ONCE = 1.0  # seconds, on a machine that does much else


WHOLE = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.qemu if name == "qemu" else ()) for name in CASES]
)


@dataclass
class World:
    """One driver, one directory, and what must be gone in the end."""

    case: Case
    top: Path

    @property
    def spec(self) -> VmSpec:
        return self.case.spec(self.top)

    def left_behind(self) -> list[str]:
        """Whatever tells of a machine that was: files, mounts, cgroups, processes."""
        machines = self.top / "vm"
        return [
            *(str(path) for path in (machines.rglob("*") if machines.exists() else ())),
            *(point for point in mount.mount_points() if point.startswith(str(self.top))),
            *(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/*{SANDBOX}*")),
            *(line for line in _command_lines() if str(self.top) in line),
        ]


def _command_lines() -> Iterator[str]:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            yield (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended


@pytest.fixture(params=CASES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    top = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    world = World(CASES[request.param], top)
    assert world.left_behind() == []
    yield world
    left = world.left_behind()
    mount.detach_below(str(top))
    shutil.rmtree(top)
    assert left == []


@WHOLE
async def test_the_agent_of_a_machine_answers_where_it_is_said_to_be(name: str, guest: Path, short_tmp: Path) -> None:
    (short_tmp / name).mkdir()
    journal = ListJournal()
    async with (
        CASES[name].driver().launch(CASES[name].spec(short_tmp / name, whole=True), journal) as vm,
        asyncio.timeout(45),
        connect(vm.agent, timeout=45, retry=0.1) as client,
    ):
        answer = await HealthClient(client).Check(health_pb2.CheckRequest(), timeout=45)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert journal.entries == []


@WHOLE
async def test_network_interfaces_are_there_from_the_start_or_come_and_go(
    name: str, guest: Path, short_tmp: Path
) -> None:
    journal = ListJournal()
    top = short_tmp / f"{name}-nics"
    top.mkdir()
    with pod() as inside, pod() as outside:
        join(inside, "eth0", outside, "veth0")
        inside.ip("addr add 10.0.0.2/24 dev eth0")
        async with open_network(inside.path, Model.TCFILTER, journal, queues=2) as network:
            spec = CASES[name].spec(top, whole=True)
            spec = replace(spec, devices=(*spec.devices, *network.nics))
            async with CASES[name].driver().launch(spec, journal) as vm, asyncio.timeout(45):
                async with connect(vm.agent, timeout=45, retry=0.1) as client:
                    await HealthClient(client).Check(health_pb2.CheckRequest(), timeout=45)
                join(inside, "eth1", outside, "veth1")
                inside.ip("addr add 10.0.1.2/24 dev eth1")
                (late,) = await network.rescan()
                plugged = await vm.attach(late.nic)
                await vm.detach(plugged)
                with pytest.raises(HypervisorError, match="was not plugged in"):
                    await vm.detach(plugged)
                await vm.attach(late.nic)
                assert start_time(vm.pid) is not None
            for nic in network.nics:  # whose descriptors stay their owner's
                assert [os.fstat(fd).st_rdev for fd in nic.tap_fds] == [Path("/dev/net/tun").stat().st_rdev] * 2
        assert inside.links() == {"lo", "eth0", "eth1"}
    assert journal.entries == []


async def test_a_machine_runs_under_a_pid_on_record_until_it_is_left(world: World) -> None:
    journal = ListJournal()
    async with world.case.driver().launch(world.spec, journal) as vm:
        assert start_time(vm.pid) is not None
        assert vm.pid in [entry.pid for entry in journal.entries if isinstance(entry, KillProcess)]
        assert all(isinstance(line, str) for line in vm.console_tail())
        assert journal.stages  # it took some time, and says where
    assert journal.entries == []
    assert [
        entry for entry in journal.made if isinstance(entry, KillProcess) and start_time(entry.pid) is not None
    ] == []
    assert world.left_behind() == []


async def test_the_end_we_bring_about_is_expected(world: World) -> None:
    async with world.case.driver().launch(world.spec, ListJournal()) as vm:
        waiting = asyncio.create_task(vm.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(AT_ONCE):
        assert (await waiting).expected
        assert (await vm.wait()).expected


async def test_a_machine_that_is_killed_tells_all_who_wait_at_once(world: World) -> None:
    async with world.case.driver().launch(world.spec, ListJournal()) as vm:
        first, second, third = (asyncio.create_task(vm.wait()) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        os.kill(vm.pid, signal.SIGKILL)
        async with asyncio.timeout(AT_ONCE):
            exit = await first
            assert await third == exit == await vm.wait()
        assert second.cancelled()
        assert not exit.expected
        assert "killed by signal 9" in exit.cause


async def test_two_machines_of_one_driver_live_apart(world: World) -> None:
    driver, journal = world.case.driver(), ListJournal()
    (world.top / "other").mkdir()
    other = world.case.spec(world.top / "other")
    async with driver.launch(world.spec, journal) as vm:
        if world.case.name != "namespace":  # whose cgroups are named for the sandbox, of which there is one
            async with driver.launch(other, journal) as second:
                os.kill(second.pid, signal.SIGKILL)
                await second.wait()
        assert start_time(vm.pid) is not None
    assert world.left_behind() == []


class FailingJournal(ListJournal):
    """A record on a full disk, from the nth entry on."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self._room = entries - 1
        self.refused = False

    def intend(self, undo: Undo) -> None:
        if not self._room:
            self.refused = True
            raise OSError(28, "No space left on device")
        self._room -= 1
        super().intend(undo)


@pytest.mark.parametrize("entry", [1, 2, 3])
async def test_a_launch_whose_record_cannot_be_written_fails_and_leaves_nothing(world: World, entry: int) -> None:
    journal = FailingJournal(entry)
    cause = ""
    try:
        async with world.case.driver().launch(world.spec, journal):
            pass
    except HypervisorError as error:
        cause = error.cause
    assert ("No space left on device" in cause) == journal.refused  # a driver may have fewer entries
    assert journal.entries == []
    assert world.left_behind() == []


class CancellingJournal(ListJournal):
    """Cancels whoever launches at the nth entry."""

    launching: asyncio.Task[None]

    def __init__(self, entries: int) -> None:
        super().__init__()
        self._left = entries

    def intend(self, undo: Undo) -> None:
        super().intend(undo)
        self._left -= 1
        if not self._left:
            self.launching.cancel()


@pytest.mark.parametrize("entry", [1, 2, 3])
async def test_a_launch_that_is_cancelled_leaves_nothing(world: World, entry: int) -> None:
    journal = CancellingJournal(entry)

    async def launch() -> None:
        async with world.case.driver().launch(world.spec, journal):
            pass

    journal.launching = asyncio.create_task(launch())
    async with asyncio.timeout(20):
        await asyncio.wait([journal.launching])
    assert journal.launching.cancelled() or len(journal.made) < entry
    assert journal.entries == []
    assert world.left_behind() == []


@pytest.mark.parametrize("entry", [1, 2, 3, None])
async def test_what_a_killed_launcher_leaves_is_all_undone_from_its_record(world: World, entry: int | None) -> None:
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.conformance.hypervisor.doomed", world.case.name, str(world.top), str(entry or 0),
        cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert launcher.stdout is not None
    async with asyncio.timeout(30):
        if await launcher.stdout.readline() == b"launched\n":  # also a driver with fewer entries
            launcher.kill()
        assert await launcher.wait() == -signal.SIGKILL
    record = Record.load(SANDBOX, root=world.top / "records")
    assert record.undo
    assert record.unwind() == []
    assert world.left_behind() == []
