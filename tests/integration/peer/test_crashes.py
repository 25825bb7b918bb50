"""Peer pods whose adaptor is killed, and whose cloud and disk fail, at every point of their lives one after the other.

Another pod lives through all of it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from kata_caa.errors import Fault
from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectionClosed
from tests.drivers.faults import Point
from tests.integration.peer.world import BOUND, BYSTANDER, points, tried, worlds

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("bridges")]


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


async def test_wherever_a_machine_becomes_a_pods_and_is_replaced_none_stays_and_none_is_lost(short_tmp: Path) -> None:
    async with worlds(short_tmp / "pool", pool=1) as world:
        passed = [each for each in await points(world) if each[0] in ("write machine.json", "remove machine", "bind")]
        planned = [Point(place, number, when, "kill") for place, number in passed for when in ("before", "after")]
        planned += [
            Point(place, number, when, "break")
            for place, number in passed
            for when in ("before", "after")
            if place != "bind"
        ]
        planned += [Point("bind", 1, "around", what) for what in ("transient", "delay", "cut")]
        planned += [Point("create", 1, "around", what) for what in (*(fault.value for fault in Fault), "twice", "cut")]
        planned += [Point("create", 1, when, "kill") for when in ("before", "after")]
        await tried(world, planned)


async def test_a_pod_whose_runtime_dies_together_with_the_adaptor_is_deleted(short_tmp: Path) -> None:
    async with worlds(short_tmp / "alone") as world:
        for place in ("write pod.json", "create"):
            world.faults.plan(Point(place, 1, "after", "kill"))
            spec = world.spec("victim", world.net)
            request = hv.CreateVMRequest(
                id=spec.sandbox_id, annotations=spec.annotations, networkNamespacePath=str(spec.network_namespace)
            )
            async with connect(UnixAddress(str(world.adaptor.socket)), timeout=BOUND) as client:
                with suppress(ConnectionClosed):
                    await HypervisorClient(client).CreateVM(request, timeout=BOUND)
                    await HypervisorClient(client).StartVM(hv.StartVMRequest(id=spec.sandbox_id), timeout=BOUND)
            await world.adaptor.ended()
            await world.adaptor.start()
            assert await world.settled(BYSTANDER) == []
        await world.calm()
