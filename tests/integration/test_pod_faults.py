"""Nights of an operator: what dies, hangs, fills up or disappears under pods of several containers.

Afterwards the states are right for what both managers ask then, stops end in bounded time, and nothing is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_protos.task_types_pb2 import Status
from kata_py.resource import mount
from kata_py.sandbox import record as records
from tests.crio import Crio
from tests.crio_calls import CrioError
from tests.crio_container import Container, ExecResult
from tests.faults import processes, stopped
from tests.integration.conftest import ON_NAMESPACES, ON_QEMU, left_behind
from tests.integration.test_pod import running
from tests.manager import Manager
from tools.footprint import Footprint

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

PROMPT = 0.05  # seconds in which State answers, whatever the guest does
SLOW = 45.0  # seconds in which a stop has ended, whatever the guest does


def pids(pod: str) -> dict[str, int]:
    """The processes that a pod's record names, by their names."""
    return processes(json.loads((records.ROOT / pod / "record.json").read_text()))


async def all_lost(crio: Crio, containers: list[Container]) -> None:
    """All containers are seen to have ended, nobody knows how; and CRI-O can remove them."""
    for each in containers:
        assert each.waiter is not None
        async with asyncio.timeout(30):
            await each.waiter
        assert (each.state.status, each.state.exit_code) == (Status.STOPPED, 255)
        assert (crio.exits / each.id).exists()


@ON_QEMU
@pytest.mark.parametrize("victim", ["qemu", "virtiofsd"])
async def test_a_death_in_the_machine_ends_all_containers_for_crio(crio: Crio, victim: str) -> None:
    async with crio.pod("night") as sandbox:
        containers = [await crio.run("night", f"c{number}") for number in range(2)]
        os.kill(pids("night")[victim], signal.SIGKILL)
        await all_lost(crio, [*containers, sandbox])
        await crio.stop_pod(sandbox)
        late = crio.prepare_container("night", "late")
        with pytest.raises(CrioError, match="has ended"):
            await crio.create(late)
        await crio.forget(late)
        for each in (*containers, sandbox):
            assert await crio.delete(each) is not None


@ON_QEMU
@pytest.mark.parametrize("victim", ["qemu", "virtiofsd", "shim"])
async def test_a_death_ends_all_containers_for_containerd(manager: Manager, victim: str) -> None:
    async with running(manager, "night") as first, running(manager, "app", pod="night") as app:
        waits = [asyncio.create_task(each.wait()) for each in (first, app)]
        os.kill(pids("night")[victim], signal.SIGKILL)
        ends = await asyncio.gather(*waits, return_exceptions=True)
        if victim == "shim":  # a connection that ends makes containerd run delete, as the fixture does
            await asyncio.to_thread(manager.delete, "app", app.bundle)
            await asyncio.to_thread(manager.delete, "night", first.bundle)
            return
        for each, end in zip((first, app), ends, strict=True):
            assert not isinstance(end, BaseException)
            assert (end.status, (await each.state()).status) == (255, Status.STOPPED)
            assert (await each.state()).exited_at.ToNanoseconds() == end.exited_at
            assert await each.delete() == end


@pytest.mark.alone
@ON_QEMU
async def test_a_guest_that_hangs_holds_up_neither_state_nor_for_long_a_stop(crio: Crio) -> None:
    async with crio.pod("hung") as sandbox:
        container = await crio.run("hung", "app")
        with stopped(pids("hung")["qemu"]):
            began = time.monotonic()
            for each in (container, sandbox):
                assert (await crio.status(each)).status == Status.RUNNING
                assert await crio.is_alive(each)
            assert time.monotonic() - began < 4 * PROMPT
            began = time.monotonic()
            await crio.stop(container, 0)
            await crio.stop(sandbox, 0)
            assert time.monotonic() - began < SLOW
        assert (container.state.exit_code, sandbox.state.exit_code) == (255, 255)


@pytest.fixture
def small_records() -> Iterator[Path]:
    """A /run/vc/sbs of few pages."""
    records.ROOT.mkdir(parents=True, exist_ok=True)
    mount.mount("tmpfs", str(records.ROOT), "tmpfs", data="size=64k")
    yield records.ROOT
    mount.unmount(str(records.ROOT))


@ON_NAMESPACES
async def test_a_full_run_fails_new_containers_by_name_and_no_others(small_records: Path, crio: Crio) -> None:
    async with crio.pod("full") as sandbox:
        container = await crio.run("full", "app")
        filler = small_records / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
        except OSError:
            pass
        before = Footprint.take()
        late = crio.prepare_container("full", "late")
        with pytest.raises(CrioError, match="No space left"):
            await crio.create(late)
        await crio.forget(late)
        assert left_behind(before) == []
        assert await crio.exec_sync(container, "echo", "works") == ExecResult(0, b"works\n")
        await crio.stop_pod(sandbox)
        assert container.state.exit_code == 143
        for each in (container, sandbox):
            assert await crio.delete(each) is not None
        filler.unlink()


@ON_NAMESPACES
async def test_a_pod_whose_network_namespace_disappears_runs_on_and_goes_as_any_other(crio: Crio) -> None:
    async with crio.pod("offline") as sandbox:
        container = await crio.run("offline", "first")
        mount.unmount(str(crio.netns("offline")))
        other = await crio.run("offline", "second")
        assert await crio.exec_sync(other, "echo", "works") == ExecResult(0, b"works\n")
        await crio.stop_pod(sandbox)
        assert (container.state.exit_code, other.state.exit_code) == (143, 143)
