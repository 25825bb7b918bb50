"""Parts that die or hang, in each stage: afterwards `delete` leaves nothing, in the time that containerd gives it.

A victim is killed as soon as the stage is on record as begun.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kata_protos.task_types_pb2 import Status
from kata_py.config.load import load
from kata_py.resource import process
from kata_py.sandbox.record import ROOT, Record, State
from kata_py.ttrpc.errors import ConnectionClosed, TtrpcError
from tests import bundle as bundles
from tests.faults import TIMEOUT, in_stage, in_state, kill_when, on_record, panic_when
from tests.integration.conftest import ON_QEMU
from tests.integration.test_pod import running
from tests.integration.test_storage import disk, node
from tests.manager import Container, Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

# In the order in which they come on record: the guest's own do when they have ended.
_FIRST, _LAST = ["request", "plan", "share", "network", "cgroups", "queue", "machine"], ["sandbox", "create", "start"]
STAGES = {
    "namespace": [*_FIRST, "namespace", "agent", *_LAST],
    "qemu": [*_FIRST, "virtiofsd", "qemu", "agent", "kernel", "userland", *_LAST],
}
# A guest that an interrupt from outside brings down.
FRAGILE = """\
[hypervisor.qemu]
enable_debug = true
extra_monitor_socket = "qmp"
kernel_params = "{parameters} unknown_nmi_panic"
"""
# Who can be killed, and from which stage on.
VICTIMS = {
    "namespace": {"shim": "request", "agent": "namespace"},
    "qemu": {"shim": "request", "virtiofsd": "virtiofsd", "qemu": "qemu"},
}
MARKS = {"namespace": [], "qemu": [pytest.mark.qemu]}

EACH_VICTIM = [
    pytest.param(driver, victim, marks=MARKS[driver]) for driver, victims in VICTIMS.items() for victim in victims
]
EACH_VICTIM_IN_EACH_STAGE = [
    pytest.param(driver, victim, stage, marks=MARKS[driver])
    for driver, victims in VICTIMS.items()
    for victim, first in victims.items()
    for stage in STAGES[driver][STAGES[driver].index(first) :]
]


async def start(container: Container) -> None:
    """Create and start, as far as it goes."""
    with suppress(TtrpcError):
        await container.create()
        await container.start()


async def end(container: Container) -> None:
    """Kill and delete, as far as it goes."""
    with suppress(TtrpcError):
        await container.kill(all=True)
        await container.wait()
        await container.delete()


async def delete(container: Container) -> None:
    await asyncio.to_thread(container.manager.delete, container.id, container.bundle)


async def test_the_stages_are_all_those_of_a_start(manager: Manager, driver: str) -> None:
    async with manager.container("stages", "sleep", "1000") as container:
        await container.start()
        assert [span.name for span in Record.load("stages").timeline] == STAGES[driver]


@pytest.mark.parametrize(("driver", "victim", "stage"), EACH_VICTIM_IN_EACH_STAGE, indirect=["driver"])
async def test_a_kill_in_a_stage_of_the_start_leaves_nothing(manager: Manager, victim: str, stage: str) -> None:
    async with manager.container(f"kill-{victim}-{stage}", "sleep", "1000", create=False) as container:
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(kill_when(container.id, victim, in_stage(stage)))
            group.create_task(start(container))
        await delete(container)


@pytest.mark.parametrize(("driver", "victim"), EACH_VICTIM, indirect=["driver"])
async def test_a_kill_while_the_sandbox_ends_leaves_nothing(manager: Manager, victim: str) -> None:
    async with manager.container(f"kill-{victim}-end", "sleep", "1000") as container:
        await container.start()
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(kill_when(container.id, victim, in_state(State.STOPPING)))
            group.create_task(end(container))
        await delete(container)


@ON_QEMU
@pytest.mark.parametrize("stage", STAGES["qemu"][STAGES["qemu"].index("agent") :])
async def test_a_guest_that_goes_down_in_a_stage_of_the_start_leaves_nothing(fragile: Manager, stage: str) -> None:
    # In a machine the agent is PID 1, which nobody can kill alone: it goes with its kernel.
    async with fragile.container(f"panic-{stage}", "sleep", "1000", create=False) as container:
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(panic_when(container.id, in_stage(stage)))
            group.create_task(start(container))
        await delete(container)


@ON_QEMU
async def test_a_guest_that_goes_down_while_the_sandbox_ends_leaves_nothing(fragile: Manager) -> None:
    async with fragile.container("panic-end", "sleep", "1000") as container:
        await container.start()
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(panic_when(container.id, in_state(State.STOPPING)))
            group.create_task(end(container))
        await delete(container)


@ON_QEMU
async def test_a_guest_that_panics_ends_its_container(manager: Manager) -> None:
    async with manager.container("panicking", "sh", "-c", "echo c > /proc/sysrq-trigger") as container:
        await container.start()
        assert (await container.wait()).status == 255
        assert (await container.state()).status == Status.STOPPED


@pytest.fixture
def fragile(manager: Manager, tmp_path: Path) -> Manager:
    """A manager whose guests an interrupt from outside brings down."""
    config = tmp_path / "configuration.toml"
    config.write_bytes(manager.config.read_bytes())
    parameters = load(config).hypervisor.kernel_params
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "10-fragile.toml").write_text(FRAGILE.format(parameters=parameters))
    return manager.using(config=config)


@ON_QEMU
@pytest.mark.parametrize("victim", ["shim", "virtiofsd", "qemu", "agent"])
async def test_a_kill_while_a_disk_is_plugged_in_leaves_nothing(fragile: Manager, victim: str, tmp_path: Path) -> None:
    with disk(tmp_path / "image") as device:
        block = node(device)
        bundle = bundles.spec("app", fragile.rootfs, bundles.process(["sleep", "1000"]))
        bundle["linux"] |= {"devices": block["devices"]}
        bundle["linux"]["resources"] = {"devices": block["rules"], "memory": {"limit": 256 << 20}}
        moment = in_stage("create app")
        async with (
            running(fragile, "pod") as pod,
            fragile.container("app", spec=bundles.in_pod(bundle, "pod"), create=False) as app,
        ):
            async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
                group.create_task(panic_when("pod", moment) if victim == "agent" else kill_when("pod", victim, moment))
                group.create_task(start(app))
            if victim == "shim":
                await forsaken(pod, app)


async def forsaken(*containers: Container) -> None:
    """CRI-O removes the bundles, and nobody runs `delete`: `kata-ctl gc` is left."""
    for each in containers:
        each.bundle.rename(each.bundle.with_suffix(".away"))
    program = Path(sys.executable).with_name("kata-ctl")
    gc = await asyncio.create_subprocess_exec(program, "gc", stdout=subprocess.PIPE)
    said, _ = await gc.communicate()
    assert (gc.returncode, containers[0].id in said.decode()) == (0, True)
    assert not (ROOT / containers[0].id).exists()
    for each in containers:
        each.bundle.with_suffix(".away").rename(each.bundle)


async def test_delete_ends_the_machine_of_a_killed_shim_even_if_it_is_killed_itself(manager: Manager) -> None:
    async with manager.container("orphan", "sleep", "1000") as container:
        pid = await container.start()
        os.kill(container.shim_pid, signal.SIGKILL)
        entries = len(Record.load("orphan").undo)
        deleting = await asyncio.create_subprocess_exec(
            *manager.command("orphan", "-bundle", str(container.bundle), "delete"), stdout=subprocess.DEVNULL
        )
        with suppress(LookupError):  # it was too quick for us
            await on_record("orphan", lambda content: len(content["undo"]) < entries)
            deleting.kill()
        await deleting.wait()
        await delete(container)
        assert process.start_time(pid) is None


async def test_delete_ends_a_shim_that_hangs_and_its_machine(manager: Manager) -> None:
    async with manager.container("hanging", "sleep", "1000") as container:
        pid, shim = await container.start(), container.shim_pid
        os.kill(shim, signal.SIGSTOP)
        await delete(container)
        assert (process.start_time(shim), process.start_time(pid)) == (None, None)


async def test_delete_of_what_never_was_succeeds(manager: Manager, tmp_path: Path) -> None:
    manager.delete("never-was", tmp_path)


async def test_a_creation_whose_manager_disappears_is_found_by_the_next(manager: Manager) -> None:
    async with manager.container("forsaken", "sh", "-c", "exit 7", create=False) as container:
        creating = asyncio.create_task(container.create())
        await on_record("forsaken", in_stage("agent"))
        await container.disconnect()
        with pytest.raises(ConnectionClosed):
            await creating
        await container.connect()
        await on_record("forsaken", in_state(State.RUNNING))
        assert (await container.state()).status == Status.CREATED
        await container.start()
        assert (await container.wait()).status == 7


async def test_a_creation_whose_manager_disappears_is_undone_by_a_delete(manager: Manager) -> None:
    async with manager.container("regretted", "true", create=False) as container:
        creating = asyncio.create_task(container.create())
        await on_record("regretted", in_stage("agent"))
        await container.disconnect()
        with pytest.raises(ConnectionClosed):
            await creating
        await container.connect()
        assert (await container.delete()).status == 255
        assert not (ROOT / "regretted").exists()
