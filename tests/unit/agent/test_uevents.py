from __future__ import annotations

import asyncio

import pytest

from kata_agent.errors import AgentError
from kata_agent.uevents import Uevent, Uevents, parse
from tests.unit.agent.machine import Machine

DISK = (
    b"add@/devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio4/block/vdb\0ACTION=add\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio4/block/vdb\0SUBSYSTEM=block\0"
    b"MAJOR=254\0MINOR=16\0DEVNAME=vdb\0DEVTYPE=disk\0DISKSEQ=10\0SEQNUM=1101\0"
)


def test_a_message_of_the_kernel_is_read() -> None:
    assert parse(DISK) == Uevent("add", "/devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio4/block/vdb", "block")


@pytest.mark.parametrize("message", [b"", b"libudev\0\xfe\xed\xca\xfe", b"add@/devices/x\0SEQNUM=1\0", b"\xff\xfe"])
def test_what_is_not_of_the_kernel_is_no_news(message: bytes) -> None:
    assert parse(message) is None


async def test_what_is_there_already_is_found_without_listening(machine: Machine) -> None:
    found = await Uevents(machine.open).wait(lambda: "vdb", "a disk", subsystems=("block",), timeout=1)

    assert (found, machine.listening) == ("vdb", 0)


async def test_what_appears_while_listening_begins_is_found_without_news(machine: Machine) -> None:
    looks = iter([None, "vdb"])

    assert await Uevents(machine.open).wait(lambda: next(looks), "a disk", subsystems=("block",), timeout=1) == "vdb"
    assert machine.listening == 1


async def test_news_of_the_subsystem_is_a_reason_to_look_again(machine: Machine) -> None:
    looks: list[str] = []
    uevents = Uevents(machine.open)
    there, thrice = asyncio.Event(), asyncio.Event()

    def look() -> str | None:
        looks.append("look")
        if len(looks) == 3:
            thrice.set()
        return "vdb" if there.is_set() else None

    waiting = asyncio.create_task(uevents.wait(look, "a disk", subsystems=("block",), timeout=5))
    await asyncio.sleep(0)
    machine.tell("add", "/devices/virtual/tty/tty9", SUBSYSTEM="tty")
    machine.tell("add", "/devices/pci0000:00/block/vda", SUBSYSTEM="block")
    async with asyncio.timeout(5):
        await thrice.wait()
    there.set()
    machine.tell("add", "/devices/pci0000:00/block/vdb", SUBSYSTEM="block")

    assert await waiting == "vdb"
    assert len(looks) == 4  # twice at the beginning, and never for the terminal


async def test_a_wait_ends_at_its_bound_and_says_for_what_it_was(machine: Machine) -> None:
    uevents = Uevents(machine.open)

    with pytest.raises(AgentError, match=r"^Timeout after 0.01 s waiting for uevent of the disk 02/00$"):
        await uevents.wait(lambda: None, "the disk 02/00", subsystems=("block",), timeout=0.01)


async def test_nobody_listens_when_nobody_waits(machine: Machine) -> None:
    uevents = Uevents(machine.open)
    waits = [
        asyncio.create_task(uevents.wait(lambda: None, what, subsystems=("net",), timeout=60)) for what in ("a", "b")
    ]
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)

    with pytest.raises(OSError, match=r"Broken pipe|Connection refused"):
        machine.tell("add", "/devices/x", SUBSYSTEM="net")
    assert machine.listening == 1


async def test_the_kernels_own_news_can_be_listened_to() -> None:
    with pytest.raises(AgentError, match="Timeout"):
        await Uevents().wait(lambda: None, "nothing", subsystems=("block",), timeout=0.01)
