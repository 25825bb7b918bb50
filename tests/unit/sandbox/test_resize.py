"""A machine that follows its containers: the order of things, over a machine that a test moves by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from kata_py.config.size import SandboxSize
from kata_py.hypervisor.api import HypervisorError, Size, Vm
from kata_py.oci.spec import LinuxResources
from kata_py.sandbox.agent import Agent
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.resize import ResizeFailed, Resizing
from kata_py.sandbox.size import MIB, Sizing
from tests.tasks import until

MOST = Size(4, 4096)


class Machine:
    """`limit` is what it can become; `step` how much memory it takes at once; `pausing` holds it back."""

    def __init__(self) -> None:
        self.size = Size(1, 512)
        self.limit = MOST
        self.step = 4096
        self.error: Exception | None = None
        self.asked: list[Size] = []
        self.blocks: set[int] = set()
        self.go = asyncio.Event()
        self.go.set()

    async def resize(self, wanted: Size, *, block: int) -> Size:
        self.asked.append(wanted)
        self.blocks.add(block)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        memory = min(wanted.memory, self.limit.memory, self.size.memory + self.step)
        self.size = Size(min(wanted.cpus, self.limit.cpus), memory)
        return self.size


class Guest:
    def __init__(self) -> None:
        self.onlined: list[tuple[int, bool]] = []
        self.error: SandboxError | None = None

    async def memory_block(self) -> int:
        return 128 * MIB

    async def online(self, cpus: int, *, memory: bool) -> None:
        if self.error is not None:
            raise self.error
        self.onlined.append((cpus, memory))


class World:
    def __init__(self, *, fixed: bool = False) -> None:
        self.machine = Machine()
        self.guest = Guest()
        self.placed: list[Sequence[LinuxResources]] = []
        sizing = Sizing(1, 512, MOST, SandboxSize(), fixed=fixed)
        self.resizing = Resizing(cast(Vm, self.machine), cast(Agent, self.guest), sizing, self.place)

    async def place(self, containers: Sequence[LinuxResources]) -> None:
        self.placed.append(containers)

    async def reaches(self, size: Size) -> None:
        await until(lambda: self.machine.size == size)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.machine.go.set()
    await world.resizing.aclose()


def resources(cpus: float = 0, memory: int = 0) -> LinuxResources:
    quota: Any = {"quota": int(cpus * 100_000), "period": 100_000}
    return {"cpu": quota, "memory": {"limit": memory * MIB}}


async def test_a_machine_has_grown_and_its_guest_uses_it_before_a_container_is_created(world: World) -> None:
    await world.resizing.add("a", resources(2, 512))
    assert world.machine.size == Size(3, 1024)
    assert world.guest.onlined == [(3, True)]
    assert world.machine.blocks == {128}


async def test_what_is_there_already_is_not_asked_for(world: World) -> None:
    await world.resizing.add("a", {})
    await until(lambda: world.placed == [[{}]])
    assert world.machine.asked == []
    assert world.guest.onlined == []


async def test_memory_comes_in_steps_and_the_guest_takes_in_each(world: World) -> None:
    world.machine.step = 256
    await world.resizing.add("a", resources(1, 600))
    assert world.machine.size == Size(2, 1112)
    assert world.guest.onlined == [(2, True), (0, True), (0, True)]


async def test_a_machine_that_cannot_grow_says_what_it_has_and_what_is_needed(world: World) -> None:
    world.machine.limit = Size(4, 640)
    with pytest.raises(
        ResizeFailed, match=r"^the machine has 2 vCPUs and 640 MiB of 2 vCPUs and 1024 MiB .*memory_slots"
    ):
        await world.resizing.add("a", resources(1, 512))
    await world.reaches(Size(1, 512))  # the container does not count any more


@pytest.mark.parametrize("error", [HypervisorError("qemu", "no memory"), SandboxError("no memory")])
async def test_why_it_cannot_grow_is_told(world: World, error: Exception) -> None:
    world.machine.error = error
    with pytest.raises(ResizeFailed, match="no memory"):
        await world.resizing.add("a", resources(1))


async def test_a_guest_that_does_not_take_it_in_fails_the_container(world: World) -> None:
    world.guest.error = SandboxError("agent: only 1 of 2 processors are online")
    with pytest.raises(ResizeFailed, match="only 1 of 2 processors"):
        await world.resizing.add("a", resources(1))


async def test_more_than_the_configuration_gives_is_a_warning_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.resizing.add("a", resources(9))
    await world.resizing.add("b", {})
    assert world.machine.size.cpus == 4
    assert caplog.text.count("the pod wants 10 vCPUs, of which it gets 4 (default_maxvcpus)") == 1


async def test_whoever_comes_meanwhile_is_taken_along(world: World) -> None:
    world.machine.go.clear()
    adding = [asyncio.create_task(world.resizing.add(name, resources(1, 256))) for name in "abc"]
    await until(lambda: world.machine.asked != [])
    world.machine.go.set()
    await asyncio.gather(*adding)
    assert world.machine.asked == [Size(4, 1280)]


async def test_a_container_that_is_given_up_while_the_machine_grows_does_not_count(world: World) -> None:
    world.machine.go.clear()
    adding = asyncio.create_task(world.resizing.add("a", resources(2)))
    await until(lambda: world.machine.asked != [])
    adding.cancel()
    await asyncio.wait([adding])
    assert adding.cancelled()
    world.machine.go.set()
    await world.reaches(Size(1, 512))


async def test_a_machine_shrinks_in_the_background_when_a_container_is_gone(world: World) -> None:
    await world.resizing.add("a", resources(1, 512))
    await world.resizing.add("b", resources(1))
    world.resizing.remove("a")
    await world.reaches(Size(2, 512))
    world.resizing.remove("a")
    await until(lambda: [list(each) for each in world.placed][-1] == [resources(1)])


async def test_a_container_that_has_stopped_makes_room_for_the_next(world: World) -> None:
    stopped = False
    await world.resizing.add("init", resources(3))
    world.resizing.follow("init", lambda: stopped)
    stopped = True
    await world.resizing.add("app", resources(1))
    await world.reaches(Size(2, 512))


async def test_a_machine_that_will_not_shrink_is_no_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.resizing.add("a", resources(1))
    world.machine.error = HypervisorError("qemu", "busy")
    world.resizing.remove("a")
    await until(lambda: "the machine's size cannot be changed: qemu: busy" in caplog.text)


async def test_an_update_grows_before_and_shrinks_after(world: World) -> None:
    await world.resizing.add("a", resources(1, 512))
    async with world.resizing.updating("a", resources(2, 128)):
        assert world.machine.size.cpus == 3
    await world.reaches(Size(3, 640))
    async with world.resizing.updating("a", {"cpu": {"quota": 300_000}}):
        assert world.machine.size == Size(4, 640)


async def test_an_update_that_the_agent_refuses_is_taken_back(world: World) -> None:
    await world.resizing.add("a", resources(1))
    with pytest.raises(SandboxError, match="no"):
        async with world.resizing.updating("a", resources(2)):
            raise SandboxError("no")
    await world.reaches(Size(2, 512))


async def test_an_update_for_which_there_is_no_room_changes_nothing(world: World) -> None:
    await world.resizing.add("a", resources(1))
    world.machine.limit = Size(2, 512)
    with pytest.raises(ResizeFailed):
        async with world.resizing.updating("a", resources(3)):
            raise AssertionError("told the agent")
    assert world.resizing._demand().size == Size(2, 512)


async def test_a_machine_of_fixed_size_is_left_alone_and_its_place_is_not() -> None:
    world = World(fixed=True)
    await world.resizing.add("a", resources(2, 512))
    await until(lambda: world.placed == [[resources(2, 512)]])
    assert world.machine.asked == []
    await world.resizing.aclose()


async def test_the_end_of_the_sandbox_ends_a_growth_that_goes_on(world: World) -> None:
    world.machine.go.clear()
    adding = asyncio.create_task(world.resizing.add("a", resources(2)))
    await until(lambda: world.machine.asked != [])
    await world.resizing.aclose()
    with pytest.raises(ResizeFailed, match="the sandbox ends"):
        await adding
