from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_py.hypervisor.api import Device, GuestDevice, VmExit
from kata_py.sandbox.dial import dial
from kata_py.sandbox.errors import DeadlineExceeded, Unavailable
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.server import Server
from tests.fakes import FakeAgent, FakeHealth


class BootingVm:
    """A machine whose agent is not there yet."""

    pid = 1

    def __init__(self, top: Path) -> None:
        self.agent = UnixAddress(str(top / "agent.sock"))
        self.exit: asyncio.Future[VmExit] = asyncio.get_running_loop().create_future()

    def console_tail(self) -> tuple[str, ...]:
        return ()

    async def wait(self) -> VmExit:
        return await asyncio.shield(self.exit)

    async def attach(self, device: Device) -> GuestDevice:
        raise AssertionError("nobody plugs anything")

    async def detach(self, device: GuestDevice) -> None:
        raise AssertionError("nobody plugs anything")


@pytest.fixture
async def vm(top: Path) -> BootingVm:
    return BootingVm(top)


async def test_an_agent_that_begins_to_listen_late_is_reached(vm: BootingVm, agent: FakeAgent) -> None:
    server = Server()
    server.add(FakeHealth(agent))

    async def reach() -> None:
        async with dial(vm, 5.0) as reached:
            assert not reached.gone
        assert reached.gone

    reaching = asyncio.create_task(reach())
    await asyncio.sleep(0)
    await server.listen(vm.agent)
    await reaching
    server.close()


async def test_no_answer_in_time_tells_the_address_and_what_the_last_attempt_met(vm: BootingVm) -> None:
    with pytest.raises(DeadlineExceeded, match=rf"no answer from {vm.agent}: .*No such file"):
        async with dial(vm, 0.1):
            pass


async def test_the_machines_end_ends_the_dialling(vm: BootingVm) -> None:
    vm.exit.set_result(VmExit("qemu exited with status 1"))
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable, match="the machine has ended"):
            async with dial(vm, 60.0):
                pass


async def test_the_machines_end_ends_the_connection_and_what_waits_for_an_answer(
    vm: BootingVm, agent: FakeAgent
) -> None:
    agent.hangs.add("PauseContainer")
    server = Server()
    server.add(FakeHealth(agent))
    server.add(agent)
    await server.listen(vm.agent)
    async with dial(vm, 5.0) as reached:
        pausing = asyncio.create_task(reached.pause_container("c1"))
        await asyncio.sleep(0)
        vm.exit.set_result(VmExit("virtiofsd exited with status 1"))
        with pytest.raises(Unavailable):
            await pausing
        await reached.wait_gone()
    server.close()


async def test_a_cancelled_dialling_leaves_no_task_behind(vm: BootingVm) -> None:
    async def reach() -> None:
        async with dial(vm, 60.0):
            pass

    reaching = asyncio.create_task(reach())
    await asyncio.sleep(0)
    reaching.cancel()
    await asyncio.wait([reaching])
    assert asyncio.all_tasks() == {asyncio.current_task()}
