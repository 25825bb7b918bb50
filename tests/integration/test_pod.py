"""Pods of several containers, by CRI-O's calls, under both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kata_protos.task_types_pb2 import Status
from tests import bundle as bundles
from tests.manager import Container, Manager
from tests.netns import Pod, pod

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("clean")]


@asynccontextmanager
async def running(
    manager: Manager,
    id: str,
    *args: str,
    pod: str = "",
    mounts: Sequence[Mapping[str, Any]] = (),
    network: Pod | None = None,
) -> AsyncIterator[Container]:
    """A container of a pod that runs, or without a pod's id the pod's first."""
    process = bundles.process(args or ["sleep", "100000"])
    spec = bundles.in_pod(bundles.spec(id, manager.rootfs, process, mounts=mounts), pod or id, sandbox=not pod)
    if network is not None:
        [namespace] = [each for each in spec["linux"]["namespaces"] if each["type"] == "network"]
        namespace["path"] = str(network.path)
    async with manager.container(id, spec=spec) as container:
        await container.start()
        yield container


async def test_containers_come_and_go_in_a_pod_that_stays(manager: Manager) -> None:
    async with running(manager, "pod") as first:
        async with running(manager, "app", pod="pod") as app:
            assert app.address == first.address
            assert (await app.connected())[0] == first.shim_pid
            assert await app.run("echo", "hello") == (0, b"hello\n")
            for number in range(3):  # an init container, then another, then one that fails
                async with running(manager, f"init{number}", "sh", "-c", f"exit {number}", pod="pod") as init:
                    assert (await init.wait()).status == number
            assert (await app.state()).status == Status.RUNNING
        assert (await first.state()).status == Status.RUNNING


async def test_containers_of_a_pod_share_host_name_ipc_and_shared_memory_but_not_processes(manager: Manager) -> None:
    shm = {"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind", "rw"]}
    async with (
        running(manager, "pod", mounts=[shm]),
        running(manager, "one", pod="pod", mounts=[shm]) as one,
        running(manager, "two", pod="pod", mounts=[shm]) as two,
    ):
        assert await one.run("sh", "-c", "echo shared > /dev/shm/a; hostname") == (0, b"pod\n")
        assert await two.run("sh", "-c", "cat /dev/shm/a; hostname") == (0, b"shared\npod\n")
        spaces = [await each.run("readlink", "/proc/1/ns/ipc", "/proc/1/ns/uts") for each in (one, two)]
        assert spaces[0] == spaces[1]
        pids = [await each.run("readlink", "/proc/1/ns/pid") for each in (one, two)]
        assert pids[0] != pids[1]


async def test_the_end_of_the_first_container_ends_the_pod(manager: Manager) -> None:
    async with running(manager, "pod") as first, running(manager, "app", pod="pod") as app:
        await first.kill()
        assert (await first.wait()).status == 137
        assert (await app.wait()).status == 137
        assert (await app.state()).status == Status.STOPPED


async def test_the_shim_ends_after_the_last_container_is_deleted(manager: Manager) -> None:
    async with running(manager, "pod") as first:
        async with running(manager, "app", pod="pod") as app:
            await app.kill()
            await app.wait()
            await app.delete()
            await app.shutdown()
            assert (await first.state()).status == Status.RUNNING
        await first.kill()
        await first.wait()
        await first.delete()
        await first.shutdown()


async def test_containers_of_a_pod_reach_the_world_over_its_links_and_are_reached(manager: Manager) -> None:
    with pod() as world, pod() as inside:
        for number in (0, 1):
            inside.ip(f"link add eth{number} type veth peer name out{number} netns {world.pid}")
            inside.ip(f"addr add 10.{number}.0.2/24 dev eth{number}")
            inside.ip(f"link set eth{number} up")
            world.ip(f"addr add 10.{number}.0.1/24 dev out{number}")
            world.ip(f"link set out{number} up")
        inside.ip("route add default via 10.0.0.1")
        before = inside.state()
        async with running(manager, "pod", network=inside), running(manager, "app", pod="pod") as app:
            for number in (0, 1):
                assert (await app.run("ping", "-c", "1", "-W", "5", f"10.{number}.0.1"))[0] == 0
                world.run("busybox", "ping", "-c", "1", "-W", "5", f"10.{number}.0.2")
            assert b"default via 10.0.0.1 dev eth0" in (await app.run("ip", "route"))[1]
            inside.ip(f"link add late type veth peer name out2 netns {world.pid}")  # as Docker does, and Multus can
            inside.ip("addr add 10.2.0.2/24 dev late")
            inside.ip("link set late up")
            world.ip("addr add 10.2.0.1/24 dev out2")
            world.ip("link set out2 up")
            async with asyncio.timeout(20):
                while (await app.run("ping", "-c", "1", "-W", "1", "10.2.0.1"))[0]:
                    pass
            inside.ip("link del late")
        assert inside.state() == before
