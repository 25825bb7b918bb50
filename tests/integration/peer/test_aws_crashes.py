"""Peer pods on EC2 whose adaptor is killed, and whose calls go wrong, at every call of their lives one after the other.

The adaptor is a process that asks moto by HTTP. Its machines do not boot; another pod lives through all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.ec2.models import ec2_backends

from tests import ebs
from tests.drivers.faults import Point
from tests.integration.peer.calls import CallFaults
from tests.integration.peer.world import World, inhabited, points, settle, tried
from tests.moto import KEYS, REGION, Ec2Server, ec2_server

pytestmark = [
    pytest.mark.root,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("bridges"),
    pytest.mark.timeout(300),
]

ADDRESSES = "54.214.0.0/16"  # moto's public ones
WAYS = ("refuse", "cut", "delay", "twice")


@dataclass(frozen=True)
class Ec2Store:
    """What moto has, read without a call."""

    ec2: Ec2Server

    def ids(self) -> Sequence[str]:
        """As `Ec2Server.objects`."""
        return self.ec2.objects()

    def sandboxes(self, tag: str) -> Sequence[str]:
        """Whose they are, by a tag; what has none is told by its id."""
        tags = ec2_backends[ebs.ACCOUNT][REGION].tags.copy()
        return sorted({tags.get(id, {}).get(tag, id) for id in self.ids()})


@asynccontextmanager
async def worlds(top: Path) -> AsyncIterator[World]:
    """A world whose pods have instances with two interfaces and public addresses: one object of each kind."""
    top.mkdir()
    with ec2_server() as ec2:
        environ = {
            "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"], "AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
            "AWS_REGION": REGION, "AWS_ENDPOINT_URL_EC2": ec2.url, "AWS_SUBNET_ID": ec2.subnets[0],
            "AWS_SG_IDS": ec2.group, "PODVM_AMI_ID": ec2.image, "DISABLECVM": "true", "USE_PUBLIC_IP": "true",
        }  # fmt: skip
        flags = ["-aws-settle-time", "0s", "-ext-network-via-podvm"]
        faults, store = CallFaults(), Ec2Store(ec2)
        faults.at(ec2)
        async with inhabited(top, ["aws", *flags], environ, ADDRESSES, faults, store) as world:
            faults.victim = lambda: world.adaptor.pid
            world.size = len(store.ids())
            world.sweep = "DescribeInstances by tag:kata-py-owner"
            world.tokenless = ("AllocateAddress",)
            await settle(world)
            yield world


def changing(place: str) -> bool:
    """Whether a call changes something."""
    return not place.startswith("Describe")


async def test_wherever_the_adaptor_is_killed_nothing_stays_and_the_others_live(short_tmp: Path) -> None:
    async with worlds(short_tmp / "ec2-killed") as world:
        passed = [each for each in await points(world) if changing(each[0])]
        assert {"RunInstances", "AllocateAddress", "TerminateInstances"} <= {place for place, _ in passed}
        await tried(world, [Point(*each, when, "kill") for each in passed for when in ("before", "after")])


@pytest.mark.harm
async def test_whichever_call_goes_wrong_nothing_stays_and_the_others_live(short_tmp: Path) -> None:
    async with worlds(short_tmp / "ec2-failing") as world:
        passed = [each for each in await points(world) if changing(each[0]) or each[1] == 1]  # a look again is no other
        planned = [(each, what) for each in passed for what in WAYS if what != "twice" or changing(each[0])]
        await tried(world, [Point(*each, "around", what) for each, what in planned])
