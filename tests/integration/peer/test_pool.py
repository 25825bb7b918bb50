"""Peer pods whose machines ran before them: the real shim, adaptor, forwarders and agents."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests import registry as registries
from tests.adaptor import Adaptor
from tests.integration.peer.conftest import CONFIGURATION, adaptor_over
from tests.integration.peer.pods import Cloud, container, network, pod
from tests.manager import Manager

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]

BOUND = 60.0  # seconds that anything here may take
POOL = "default=1"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Kept:
    """An adaptor that keeps machines ready.

    Attributes:
        adaptor: Its process.
        cloud: What the cloud has.
        manager: Of pods that run there.
        successor: Another one that takes its place, not started yet.
    """

    adaptor: Adaptor
    cloud: Cloud
    manager: Manager
    successor: Adaptor

    @property
    def waiting(self) -> list[str]:
        """The machines on record that wait for a pod."""
        records = [json.loads(path.read_text()) for path in self.adaptor.socket.parent.glob("pool/*.json")]
        return sorted(each["id"] for each in records if each["phase"] == "waiting")

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(BOUND):
            while not true():  # noqa: ASYNC110 what is looked at is files
                await asyncio.sleep(0.02)

    async def filled(self, *, but: str = "") -> str:
        """Wait until one machine waits, another one than that; its id."""
        await self.until(lambda: len(self.waiting) == 1 and self.waiting != [but])
        return self.waiting[0]


@pytest_asyncio.fixture(loop_scope="session")
async def kept(short_tmp: Path, registry: registries.Registry, launcher: Path, rootfs: Path) -> AsyncIterator[Kept]:
    """An adaptor that keeps one machine ready; at the end nothing is left in its cloud but that one, which goes too."""
    directory = short_tmp / f"kp{next(_numbers)}"
    directory.mkdir()
    cloud = Cloud(directory / "cloud")
    adaptor = adaptor_over(cloud, directory, registry, "-warm-pool", POOL)
    path = directory / "remote.toml"
    path.write_text(CONFIGURATION.format(socket=adaptor.socket))
    await adaptor.start()
    successor = adaptor_over(cloud, directory, registry, "-warm-pool", POOL)
    yield Kept(adaptor, cloud, Manager(launcher, directory / "manager", path, rootfs), successor)
    await adaptor.end()
    emptying = adaptor_over(cloud, directory, registry)
    await emptying.start()
    await cloud.gone()
    await emptying.end()
    print(adaptor.log.read_text())


async def test_a_pod_takes_a_machine_that_waits_and_another_one_takes_its_place(kept: Kept, image: str) -> None:
    machine = await kept.filled()
    with network() as net, network() as other:
        async with (
            pod(kept.manager, "peer", net),
            container(kept.manager, "peer", "app", image, "sh", "-c", "echo started; exec sleep 1000") as app,
        ):
            await app.io.until(b"started\n")
            record = json.loads((kept.adaptor.pods / "peer" / "pod.json").read_text())
            assert record["machine"] == machine
            code, said = await app.run("ping", "-c", "3", "-W", "2", other.address)
            assert code == 0, said
            other.namespace.run("ping", "-c", "3", "-W", "2", net.address)
            following = await kept.filled(but=machine)
            await kept.adaptor.again(signal.SIGKILL)
            assert await app.run("echo", "hello") == (0, b"hello\n")
            assert kept.waiting == [following]
    await kept.until(lambda: kept.cloud.machines == [f"podvm-pool-{following[:8]}"])


async def test_an_adaptor_that_takes_the_place_of_another_has_its_pods_and_then_its_machines(
    kept: Kept, image: str
) -> None:
    machine = await kept.filled()
    sleep = image, "sh", "-c", "echo started; exec sleep 1000"
    with network() as net, network() as other_net:
        async with (
            pod(kept.manager, "peer", net),
            container(kept.manager, "peer", "app", *sleep) as app,
        ):
            await app.io.until(b"started\n")
            following = await kept.filled(but=machine)
            await kept.successor.start()
            try:
                async with (
                    pod(kept.manager, "other", other_net),
                    container(kept.manager, "other", "more", *sleep) as more,
                ):
                    await more.io.until(b"started\n")
                    record = json.loads((kept.adaptor.pods / "other" / "pod.json").read_text())
                    assert record["machine"] == ""  # what waits is the first adaptor's
                    await kept.adaptor.end()
                    await kept.successor.says("the other adaptor has ended")
                    for each in (app, more):
                        assert await each.run("echo", "hello") == (0, b"hello\n")
                    await kept.successor.says(f"podvm-pool-{following[:8]} waits for a pod")
                    assert kept.waiting == [following]
            finally:
                await kept.successor.end()
                await kept.adaptor.end()
                await kept.adaptor.start()
    await kept.until(lambda: kept.cloud.machines == [f"podvm-pool-{following[:8]}"])
