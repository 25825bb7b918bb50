"""Kill -9 of each part at each stage of the start: afterwards `delete` leaves nothing.

The stages are those of a good start's timeline. The record is watched as it is written; the victim is killed as
soon as the stage is on record as begun.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_py.resource import process
from kata_py.sandbox import record as records
from kata_py.ttrpc.errors import TtrpcError
from tests.integration.conftest import left_behind
from tests.manager import Container, Manager
from tools.footprint import Footprint

pytestmark = pytest.mark.asyncio(loop_scope="session")

# In the order in which they begin; a victim is killed in each stage in which it may live.
STAGES = ("request", "plan", "share", "virtiofsd", "qemu", "agent", "sandbox", "create", "start")
VICTIMS = {
    "namespace": {"shim": "request", "agent": "agent"},
    "qemu": {"shim": "request", "virtiofsd": "virtiofsd", "qemu": "qemu"},
}
CASES = [
    pytest.param(driver, victim, stage, marks=[pytest.mark.qemu] if driver == "qemu" else [])
    for driver, victims in VICTIMS.items()
    for victim, first in victims.items()
    for stage in STAGES[STAGES.index(first) :]
    if driver == "qemu" or stage not in ("virtiofsd", "qemu")
]


def victims(sandbox: str) -> Iterator[tuple[str, int]]:
    """Name and pid of the sandbox's processes: the shim, and what the record names."""
    content = json.loads((records.ROOT / sandbox / "record.json").read_bytes())
    yield "shim", content["shim"]["pid"]
    for entry in content["undo"]:
        if entry["kind"] == "kill-process":
            yield entry["name"], entry["pid"]


async def kill_at(stage: str, victim: str, sandbox: str) -> bool:
    """Kill the victim once the stage has begun; False when the sandbox was gone before that."""
    path = records.ROOT / sandbox / "record.json"
    seen = False
    while True:
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            if seen:
                return False
        else:
            seen = True
            if any(span["name"] == stage for span in content["timeline"]):
                for name, pid in victims(sandbox):
                    if name == victim:
                        os.kill(pid, signal.SIGKILL)
                        return True
        await asyncio.sleep(0)  # the record is a file: nothing tells us of it but looking


async def live(container: Container) -> None:
    """Create and start, as far as it goes."""
    await container.create()
    await container.start()


@pytest.mark.parametrize(("driver", "victim", "stage"), CASES, indirect=["driver"])
async def test_a_kill_at_a_stage_leaves_nothing_after_delete(manager: Manager, victim: str, stage: str) -> None:
    before = Footprint.take()
    sandbox = f"kill-{victim}-{stage}"
    async with manager.container(sandbox, "sleep", "1000", create=False) as container:
        killing = asyncio.create_task(kill_at(stage, victim, sandbox))
        living = asyncio.create_task(live(container))
        done, _ = await asyncio.wait({killing, living}, return_when=asyncio.FIRST_COMPLETED, timeout=90)
        assert done, "neither the stage came nor did the start end"
        if killing in done:
            assert killing.result()
        else:
            killing.cancel()
        await asyncio.wait({living}, timeout=90)
        assert living.done(), "the start hung after the kill"
        assert living.exception() is None or isinstance(living.exception(), TtrpcError)
        deleted = await asyncio.to_thread(manager.run_delete, sandbox, container.bundle)
        assert deleted.returncode == 0, deleted.stderr
    assert left_behind(before) == []
    assert not (records.ROOT / sandbox).exists()


async def test_the_stages_are_those_of_a_start(manager: Manager, driver: str) -> None:
    async with manager.container("stages", "sleep", "1000") as container:
        await container.start()
        names = {span.name for span in records.Record.load("stages").timeline}
    machine = {"virtiofsd", "qemu"} if driver == "qemu" else set()
    assert names >= (set(STAGES) - {"virtiofsd", "qemu"}) | machine


async def test_a_killed_shim_is_cleaned_up_by_delete_while_its_machine_still_runs(manager: Manager) -> None:
    before = Footprint.take()
    async with manager.container("orphan", "sleep", "1000") as container:
        pid = await container.start()
        os.kill(container.shim_pid, signal.SIGKILL)
        assert process.start_time(pid) is not None
        deleted = await asyncio.to_thread(manager.run_delete, "orphan", container.bundle)
        assert deleted.returncode == 0, deleted.stderr
        assert process.start_time(pid) is None
    assert left_behind(before) == []


async def test_delete_of_what_never_was_says_so_and_succeeds(manager: Manager, tmp_path: Path) -> None:
    deleted = manager.run_delete("never-was", tmp_path)
    assert deleted.returncode == 0, deleted.stderr
    assert deleted.stdout  # a DeleteResponse all the same
