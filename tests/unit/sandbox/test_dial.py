from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from kata_protos import agent_pb2
from kata_py.hypervisor.api import Device, GuestDevice, VmExit
from kata_py.sandbox import process as processes
from kata_py.sandbox.dial import dial
from kata_py.sandbox.errors import DeadlineExceeded, StreamCut, Unavailable
from kata_py.sandbox.process import LOST, Process
from kata_py.sandbox.stdio import StdioSpec
from kata_py.shim.guest_exec import GuestExec
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code
from tests.cutter import Cutter, between
from tests.fakes import FakeAgent, FakeHealth, GuestProcess, MemoryOpener
from tests.tasks import until


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


class DescribedAgent(FakeAgent):
    """An agent that says what it can do."""

    def __init__(self, *features: str) -> None:
        super().__init__()
        self.features = features

    async def GetGuestDetails(
        self, request: agent_pb2.GuestDetailsRequest, context: Context
    ) -> agent_pb2.GuestDetailsResponse:
        return agent_pb2.GuestDetailsResponse(agent_details=agent_pb2.AgentDetails(extra_features=self.features))


@pytest.fixture
async def foreign() -> DescribedAgent:
    """An agent that passes offsets over, as upstream's does."""
    return DescribedAgent("agent-policy", "seccomp")


@pytest.fixture
async def cutter(vm: BootingVm, top: Path) -> AsyncIterator[Cutter]:
    """Who is between a peer pod's shim and the agent."""
    async with between(vm.agent.path, str(top / "behind.sock")) as cutter:
        yield cutter


async def serve(top: Path, agent: FakeAgent) -> Server:
    agent.processes["c1", ""] = GuestProcess()
    server = Server()
    server.add(FakeHealth(agent))
    server.add(agent)
    await server.listen(UnixAddress(str(top / "behind.sock")))
    return server


async def cut_in(method: str, agent: FakeAgent, cutter: Cutter) -> None:
    """Cut the connection once the agent has been asked for that and before it answers."""
    agent.hangs.add(method)
    await until(lambda: method in agent.calls)
    cutter.cut()
    agent.release()


@pytest.mark.parametrize("method", ["ReadStdout", "ReadStderr", "WriteStdin"])
async def test_an_agent_that_does_not_count_is_not_asked_again_for_bytes_that_may_be_lost(
    vm: BootingVm, top: Path, cutter: Cutter, foreign: DescribedAgent, method: str
) -> None:
    server = await serve(top, foreign)
    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):
        cutting = asyncio.create_task(cut_in(method, foreign, cutter))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "ReadStdout": partial(reached.read_stdout, "c1", "", 0),
            "ReadStderr": partial(reached.read_stderr, "c1", "", 0),
            "WriteStdin": partial(reached.write_stdin, "c1", "", b"once", 0),
        }
        with pytest.raises(StreamCut, match="may be missing or doubled, as this guest's agent does not count them"):
            await calls[method]()
        await cutting
        await reached.signal_process("c1", "", 10)  # the agent is there still, and other calls are made again
        assert foreign.calls.count(method) == 1
        assert bytes(foreign.processes["c1", ""].stdin) in (b"", b"once")
    server.close()


async def test_an_agent_that_counts_is_asked_again(vm: BootingVm, top: Path, cutter: Cutter) -> None:
    counting = DescribedAgent("kata-py-offset")
    server = await serve(top, counting)
    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):
        reading = asyncio.create_task(reached.read_stdout("c1", "", 0))
        await cut_in("ReadStdout", counting, cutter)
        await until(lambda: counting.calls.count("ReadStdout") == 2)
        counting.process("c1").write(b"all")
        assert await reading == b"all"
    server.close()


async def test_who_is_between_may_say_that_bytes_under_way_are_lost(
    vm: BootingVm, top: Path, cutter: Cutter, foreign: DescribedAgent
) -> None:
    server = await serve(top, foreign)
    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):
        foreign.fails["ReadStdout"] = StatusError(Code.UNAVAILABLE, "the connection to the pod VM was lost")
        with pytest.raises(StreamCut, match="the connection to the pod VM was lost"):
            await reached.read_stdout("c1", "", 0)
    server.close()


async def test_an_agent_that_does_not_say_what_it_can_do_does_not_count(
    vm: BootingVm, top: Path, cutter: Cutter, agent: FakeAgent
) -> None:
    agent.fails["GetGuestDetails"] = StatusError(Code.PERMISSION_DENIED, "blocked by policy")
    server = await serve(top, agent)
    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):
        cutting = asyncio.create_task(cut_in("ReadStdout", agent, cutter))
        with pytest.raises(StreamCut):
            await reached.read_stdout("c1", "", 0)
        await cutting
    server.close()


@pytest.mark.parametrize(
    ("exec_id", "method", "status"),
    [("", "ReadStdout", 0), ("", "WriteStdin", LOST), ("e1", "ReadStdout", LOST), ("e1", "WriteStdin", LOST)],
)
async def test_a_process_whose_stream_was_cut_is_read_to_its_end_and_an_exec_of_it_has_not_gone_well(
    vm: BootingVm, top: Path, cutter: Cutter, foreign: DescribedAgent, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, exec_id: str, method: str, status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(processes, "_CUT_PAUSE", 0.01)
    server = await serve(top, foreign)
    guest = foreign.processes["c1", exec_id] = GuestProcess()
    opener = MemoryOpener()

    async def launch() -> None:
        pass

    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):
        process = Process(
            reached, partial(opener, namespace="n"), launch, container_id="c1", exec_id=exec_id,
            stdio=StdioSpec(stdin="in", stdout="out", stderr="err"),
        )  # fmt: skip
        await process.start()
        running = asyncio.create_task(process.run())
        opener.opened["out"].stdin.put_nowait(b"fed")
        await cut_in(method, foreign, cutter)
        await until(lambda: foreign.calls.count("ReadStdout") == 2)
        if method == "WriteStdin":
            await guest.stdin_closed.wait()
        guest.write(b"after")
        guest.exit(0)
        assert (await running).status == status
        assert opener.opened["out"].written["stdout"].endswith(b"after")
        assert f"{'stdin' if method == 'WriteStdin' else 'stdout'} of {process}: the connection" in caplog.text
        await process.close()
    server.close()


async def test_a_tool_is_told_that_what_it_feeds_may_be_missing(
    vm: BootingVm, top: Path, cutter: Cutter, foreign: DescribedAgent
) -> None:
    server = await serve(top, foreign)
    ran = asyncio.Event()
    async with dial(vm, 5.0, patience=5.0) as reached, asyncio.timeout(10):

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await GuestExec(reached, "c1", ["cat"]).run(reader, writer)
            writer.close()
            ran.set()

        listener = await asyncio.start_unix_server(accept, str(top / "tool.sock"))
        reader, writer = await asyncio.open_unix_connection(str(top / "tool.sock"))
        writer.write(b"\0\0\0\3fed")
        await cut_in("WriteStdin", foreign, cutter)
        said = await reader.read()
        assert said[0] == 4
        assert b"may be missing or doubled" in said
        await ran.wait()
        writer.close()
        listener.close()
    server.close()
