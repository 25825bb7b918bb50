"""Peer pods whose adaptor is killed, and whose cloud and disk fail, at every point of their lives one after the other.

Another pod lives through all of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kata_caa.errors import Fault
from tests.drivers.faults import Point
from tests.integration.peer.world import SWEEPS, World, worlds

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("bridges")]


async def points(world: World) -> list[tuple[str, int]]:
    """All that a pod's life passes, in order; of sweeps one."""
    world.faults.plan(None)
    assert await world.life("first") == ("ran", [])
    return list(dict.fromkeys((place, 1 if place in SWEEPS else number) for place, number in world.faults.seen()))


async def tried(world: World, planned: Sequence[Point]) -> None:
    """Have a pod live through each, and tell of it."""
    bad = []
    for number, point in enumerate(planned):
        world.faults.plan(point)
        began = time.monotonic()
        outcome, wrong = await world.life(f"victim-{number}", point)
        if world.faults.pending():
            wrong.append("it never happened")
        print(f"{point!s:45} {time.monotonic() - began:5.2f} s  {outcome}")
        for each in wrong:
            print(f"    {each}")
        if wrong:
            bad.append((str(point), wrong))
    print(f"{len(planned)} points")
    assert bad == []


async def test_wherever_the_adaptor_is_killed_nothing_stays_and_the_others_live(short_tmp: Path) -> None:
    async with worlds(short_tmp / "killed") as world:
        passed = await points(world)
        await tried(
            world,
            [Point(place, number, when, "kill") for place, number in passed for when in ("before", "after")],
        )


async def test_whichever_call_or_write_fails_nothing_stays_and_the_others_live(short_tmp: Path) -> None:
    async with worlds(short_tmp / "failing") as world:
        passed = await points(world)
        calls = [each for each in passed if each[0] in ("create", "delete", "owned")]
        rest = [each for each in passed if each not in calls and not each[0].startswith("tunnel")]
        ways = (*(fault.value for fault in Fault), "delay", "twice", "cut")
        planned = [Point(place, number, "around", what) for place, number in calls for what in ways]
        planned += [Point(place, number, when, "break") for place, number in rest for when in ("before", "after")]
        await tried(world, planned)
