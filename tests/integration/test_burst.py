"""Many pods asked for at once: they take turns, and all come up."""

from __future__ import annotations

import asyncio
import time

import pytest

from kata_py.sandbox import boots
from kata_py.sandbox.record import Record
from tests.integration.conftest import ON_QEMU
from tests.manager import Manager

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean"), pytest.mark.alone]

PODS = 10
SLACK = 1.5  # of what a perfect queue would take


async def start(manager: Manager, name: str, up: asyncio.Barrier) -> float:
    """Start a container, and keep it until all are up; returns the seconds it took."""
    async with manager.container(name, "sleep", "1000", create=False) as container:
        began = time.monotonic()
        await container.create()
        await container.start()
        took = time.monotonic() - began
        await up.wait()
        return took


@ON_QEMU
async def test_ten_machines_at_once_all_come_up_as_fast_as_the_processors_allow(manager: Manager) -> None:
    alone = await start(manager, "alone", asyncio.Barrier(1))
    up = asyncio.Barrier(PODS)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(start(manager, f"burst-{number}", up)) for number in range(PODS)]
    slowest = max(task.result() for task in tasks)
    assert slowest <= SLACK * PODS * alone / boots.places(), f"alone {alone:.1f} s, slowest {slowest:.1f} s"


async def test_a_boot_waits_while_others_have_their_turn(manager: Manager) -> None:
    names = [f"turn-{number}" for number in range(boots.places() + 2)]
    up = asyncio.Barrier(len(names) + 1)
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(start(manager, name, up))
        async with asyncio.timeout(60):
            while up.n_waiting < len(names):  # noqa: ASYNC110 a barrier tells nobody else
                await asyncio.sleep(0.01)
        booting = [_boot(name) for name in names]
        await up.wait()
    together = max(sum(began <= at < ended for began, ended in booting) for at, _ in booting)
    assert together <= boots.places()


def _boot(sandbox: str) -> tuple[int, int]:
    """When a sandbox's machine began to boot, and when its agent answered."""
    spans = {span.name: span for span in Record.load(sandbox).timeline}
    ended = spans["agent"].ended
    assert ended is not None
    return spans["machine"].began, ended
