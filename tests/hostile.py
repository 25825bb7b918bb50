"""A guest that is hostile to its shim: it answers as a `FakeAgent` does, but for what a test says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kata_protos import agent_pb2
from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.envelope import Request, Response
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.frames import RESPONSE
from kata_py.ttrpc.service import Method, Service, bind
from tests.drivers.outside import AGENT, CONSOLE, LOG
from tests.fakes import FakeAgent, FakeHealth


def response(stream_id: int, payload: bytes = b"", code: int = 0, message: str = "") -> bytes:
    """The frame of an answer."""
    return frames.encode(RESPONSE, stream_id, 0, b"".join(envelope.encode_response(Response(payload, code, message))))


class _Agent(FakeAgent):
    """With figures."""

    async def GetMetrics(self, request: agent_pb2.GetMetricsRequest, context: Context) -> agent_pb2.Metrics:
        return agent_pb2.Metrics(metrics="kata_guest_load 1\n")


@dataclass(frozen=True)
class Call:
    """A call of the shim's.

    Attributes:
        stream_id: Its stream.
        request: What it asks.
        writer: Where whatever the guest likes is said.
        turn: Held by who says something: what answers one call does not come within what answers another.
    """

    stream_id: int
    request: Request
    writer: asyncio.StreamWriter
    turn: asyncio.Lock

    async def say(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send bytes, with seconds between the pieces; the shim may not take them, or hang up."""
        with suppress(ConnectionError):
            async with self.turn:
                for piece in pieces:
                    self.writer.write(piece)
                    await self.writer.drain()
                    await asyncio.sleep(pause)

    async def answer(self, payload: bytes = b"", code: int = 0, message: str = "") -> None:
        """Send an answer."""
        await self.say(response(self.stream_id, payload, code, message))


Answering = Callable[[Call], Awaitable[None]]
Talking = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Guest:
    """The guest of one sandbox at a time.

    Attributes:
        agent: Who answers what nothing is said of.
        answers: How calls are answered, by their methods; a method that is not there is answered by the agent.
        log: What is said to whoever reads the agent's log; None is nothing.
        console: The same of the console.
        calls: The methods called.
    """

    def __init__(self) -> None:
        self._talks: set[asyncio.Task[None]] = set()
        self.reset()

    def reset(self) -> None:
        """Be another guest, an honest one."""
        self.agent = _Agent()
        self.answers: dict[str, Answering] = {}
        self.log: Talking | None = None
        self.console: Talking | None = None
        self.calls: list[str] = []
        services: list[Service] = [self.agent, FakeHealth(self.agent)]
        self._honest: dict[str, Method] = {
            name: bind(entry) for service in services for name, entry in service.ttrpc_methods().items()
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's calls."""
        turn = asyncio.Lock()
        try:
            while True:
                length, stream_id, _, _ = frames.HEADER.unpack(await reader.readexactly(frames.HEADER.size))
                call = Call(stream_id, envelope.decode_request(await reader.readexactly(length)), writer, turn)
                self.calls.append(call.request.method)
                self._begin(self._answer(call))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def talk(self, talking: Talking | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say something, and keep the connection until the other side ends it."""
        with suppress(ConnectionError):
            if talking is not None:
                await talking(writer)
            await reader.read()
        writer.close()

    async def aclose(self) -> None:
        """Fall silent."""
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    async def _answer(self, call: Call) -> None:
        method = call.request.method
        if method in self.answers:
            await self.answers[method](call)
            return
        honest = self._honest[method].unary
        assert honest is not None
        try:
            await call.answer(await honest(call.request.payload, Context(call.request.service, method)))
        except StatusError as error:
            await call.answer(b"", error.code, error.message)

    def _begin(self, answer: Awaitable[None]) -> None:
        async def run() -> None:
            await answer

        task = asyncio.create_task(run(), name="hostile guest")
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[Guest]:
    """A guest that the shims of a configuration with this directory get."""
    guest = Guest()
    servers = [
        await asyncio.start_unix_server(guest.serve, directory / AGENT),
        await asyncio.start_unix_server(lambda *ends: guest.talk(guest.log, *ends), directory / LOG),
        await asyncio.start_unix_server(lambda *ends: guest.talk(guest.console, *ends), directory / CONSOLE),
    ]
    try:
        yield guest
    finally:
        await guest.aclose()
        for server in servers:
            server.close()
