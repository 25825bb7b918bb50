"""Processes in containers for tools on the host, over the management API and a fake agent."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_py.shim import guest_exec
from kata_py.shim.guest_exec import Kind
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.fakes import FakeAgent, FakeHypervisor, GuestProcess, MemoryOpener
from tests.tasks import Tasks, serving, until

pytestmark = pytest.mark.root


class Client:
    """A connection that a process is asked for over."""

    def __init__(self, tasks: Tasks, agent: FakeAgent) -> None:
        self.agent = agent
        self._path = tasks.paths.records / "c1" / "shim-monitor.sock"

    async def ask(self, args: object, container: str = "c1") -> int:
        """The status that a request is answered with; then the connection is the process's."""
        self.reader, self.writer = await asyncio.open_unix_connection(self._path)
        body = json.dumps(args).encode()
        head = f"POST /exec?container={container} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        return int(answer.split(b" ")[1])

    async def process(self) -> GuestProcess:
        """What was started in the guest."""
        await until(lambda: any(exec_id for _, exec_id in self.agent.processes))
        [process] = [process for (_, exec_id), process in self.agent.processes.items() if exec_id]
        return process

    async def frame(self) -> tuple[Kind, bytes]:
        """What comes next."""
        async with asyncio.timeout(10):
            kind, length = struct.unpack(">BI", await self.reader.readexactly(5))
            return Kind(kind), await self.reader.readexactly(length)

    def send(self, data: bytes) -> None:
        self.writer.write(struct.pack(">I", len(data)) + data)


@pytest.fixture
async def client(top: Path, opener: MemoryOpener) -> AsyncIterator[Client]:
    agent = FakeAgent()
    hypervisor = FakeHypervisor(agent)
    async with serving(top, lambda configuration: hypervisor, opener) as tasks:
        await tasks.run()
        client = Client(tasks, agent)
        yield client
    client.writer.close()


async def test_streams_and_status_come_and_go_over_the_connection(client: Client) -> None:
    assert await client.ask(["tar", "-x"]) == 101
    process = await client.process()
    [request] = client.agent.execs.values()
    assert (list(request.process.Args), request.process.NoNewPrivileges) == (["tar", "-x"], True)
    client.send(b"in\0put")
    client.send(b"")
    await asyncio.wait_for(process.stdin_closed.wait(), 10)
    assert process.stdin == b"in\0put"
    process.write(b"out\xff")
    assert await client.frame() == (Kind.STDOUT, b"out\xff")
    process.write(b"err", "stderr")
    assert await client.frame() == (Kind.STDERR, b"err")
    process.exit(7)
    assert await client.frame() == (Kind.EXIT, b"\x07")
    assert await client.reader.read() == b""


@pytest.mark.parametrize("after", ["at once", "after stdin"])
async def test_a_client_that_goes_takes_its_process_with_it(client: Client, after: str) -> None:
    assert await client.ask(["sleep"]) == 101
    process = await client.process()
    if after == "after stdin":
        client.send(b"")
        await asyncio.wait_for(process.stdin_closed.wait(), 10)
    client.writer.close()
    assert await asyncio.wait_for(process.status, 10) == 137
    await until(lambda: not any(exec_id for _, exec_id in client.agent.processes))


async def test_a_frame_that_is_too_large_ends_it(client: Client) -> None:
    assert await client.ask(["sleep"]) == 101
    process = await client.process()
    client.writer.write(struct.pack(">I", guest_exec.PIECE_MAX + 1))
    assert await asyncio.wait_for(process.status, 10) == 137


async def test_what_the_guest_refuses_is_told_in_its_words(client: Client) -> None:
    client.agent.fails["ExecProcess"] = StatusError(
        Code.PERMISSION_DENIED, "ExecProcessRequest is blocked by policy: x"
    )
    assert await client.ask(["true"]) == 101
    kind, said = await client.frame()
    assert (kind, b"blocked by policy" in said) == (Kind.ERROR, True)


@pytest.mark.parametrize(
    ("args", "container"), [([], "c1"), ("true", "c1"), ([1], "c1"), (["true"], "c2"), (["true"], ""), ({}, "c1")]
)
async def test_a_request_that_is_none_is_refused(client: Client, args: object, container: str) -> None:
    assert await client.ask(args, container) == 400
    assert client.agent.execs == {}


async def test_the_beginning_of_an_id_will_do(client: Client) -> None:
    assert await client.ask(["true"], "c") == 101
    (await client.process()).exit(0)
    assert await client.frame() == (Kind.EXIT, b"\0")


async def test_the_sandbox_can_end_while_a_process_runs(client: Client) -> None:
    assert await client.ask(["sleep"]) == 101
    await client.process()  # the fixture ends the sandbox
