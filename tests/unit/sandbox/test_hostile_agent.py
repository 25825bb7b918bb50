"""An agent that answers what no agent should: the call fails in our terms, in time, and memory stays bounded."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from kata_protos import agent_pb2
from kata_protos.agent_ttrpc import AgentService
from kata_protos.telemetry_ttrpc import TelemetryService
from kata_py.sandbox.agent import ANSWERS_MAX, MESSAGE_MAX, READ_SIZE, Agent, probe
from kata_py.sandbox.errors import DeadlineExceeded, SandboxError, Unavailable
from kata_py.shim.metrics import of_agent
from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.envelope import Response
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.frames import DATA, MESSAGE_LENGTH_MAX, RESPONSE

PATIENCE = 30.0  # seconds until a test gives up
SHORT = 0.05  # seconds that a call waits for an agent that does not answer
MEMORY_MAX = 4 * MESSAGE_LENGTH_MAX  # a frame as it arrives, the message it holds, its text, and room to work
FLOOD = 16 * MESSAGE_LENGTH_MAX  # bytes: well above what may be kept

Answering = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def response(stream_id: int, payload: bytes = b"", code: int = 0, message: str = "") -> bytes:
    body = b"".join(envelope.encode_response(Response(payload, code, message)))
    return frames.encode(RESPONSE, stream_id, 0, body)


@asynccontextmanager
async def connected(answers: Answering) -> AsyncIterator[Client]:
    """Our side of a socket pair; on the other, each request is answered as the test likes."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)

    async def serve() -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length, stream_id, _, _ = frames.HEADER.unpack(await reader.readexactly(frames.HEADER.size))
                await reader.readexactly(length)
                await answers(stream_id, writer)

    serving = asyncio.create_task(serve(), name="hostile agent")
    client = await Client.over(ours, "the agent")
    try:
        async with asyncio.timeout(PATIENCE):
            yield client
    finally:
        await client.aclose()
        writer.close()
        serving.cancel()
        await asyncio.wait([serving])


@asynccontextmanager
async def agent_that(answers: Answering) -> AsyncIterator[Agent]:
    async with connected(answers) as client:
        yield Agent(client)


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_MAX, f"{peak >> 20} MiB at the peak"


async def test_an_oversized_answer_is_dropped_as_it_comes_and_the_next_call_is_answered() -> None:
    asked = 0

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await write(writer, response(stream_id))
            return
        await write(writer, frames.HEADER.pack(FLOOD, stream_id, RESPONSE, 0))
        for _ in range(FLOOD // MESSAGE_LENGTH_MAX):
            await write(writer, bytes(MESSAGE_LENGTH_MAX))

    async with agent_that(answers) as agent:
        # The hostile side's own piece and what asyncio keeps of it are within the bound too.
        with bounded_memory():
            with pytest.raises(SandboxError, match="exceeds the limit"):
                await agent.set_clock()
            await agent.set_clock()


async def test_a_frame_that_is_announced_and_never_comes_ends_with_the_deadline() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, frames.HEADER.pack(MESSAGE_LENGTH_MAX, stream_id, RESPONSE, 0) + b"x")

    async with agent_that(answers) as agent:
        with bounded_memory(), pytest.raises(DeadlineExceeded):
            await agent.metrics(SHORT)


async def test_an_agent_that_says_a_byte_at_a_time_does_not_hold_a_call_up() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, frames.HEADER.pack(1 << 20, stream_id, RESPONSE, 0))
        while True:
            await write(writer, b"x")
            await asyncio.sleep(0)

    async with agent_that(answers) as agent:
        with pytest.raises(DeadlineExceeded):
            await agent.metrics(SHORT)


@pytest.mark.parametrize("kind", [RESPONSE, DATA, 0x77])
async def test_frames_without_end_that_nobody_asked_for_are_kept_nowhere(kind: int) -> None:
    piece = frames.encode(kind, 1001, 0, bytes(1 << 16))

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        for _ in range(FLOOD // len(piece)):
            await write(writer, piece)
        await write(writer, response(stream_id))

    async with agent_that(answers) as agent:
        with bounded_memory():
            await agent.set_clock()


async def test_data_on_a_call_that_has_none_fails_that_call_alone() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, frames.encode(DATA, stream_id, 0, b"x") + response(stream_id))

    async with agent_that(answers) as agent:
        for _ in range(3):
            with pytest.raises(SandboxError, match="data on a unary stream"):
                await agent.set_clock()


@pytest.mark.parametrize("payload", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x01\xff"])
async def test_an_answer_of_another_type_is_an_error_in_our_terms(payload: bytes) -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, payload))

    async with agent_that(answers) as agent:
        with pytest.raises(SandboxError, match="not of the call's type"):
            await agent.metrics(PATIENCE)


async def test_an_agent_that_answers_nonsense_to_who_dials_anew_does_not_come_back() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, b"\xff"))

    async with connected(answers) as client:
        with pytest.raises(StatusError, match="not of the call's type"):
            await probe(client)


async def test_what_is_no_response_fails_its_call_and_the_connection_lives() -> None:
    asked = 0

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await write(
            writer, frames.encode(RESPONSE, stream_id, 0xFF, b"\x0f\xff") if asked == 1 else response(stream_id)
        )

    async with agent_that(answers) as agent:
        with pytest.raises(SandboxError, match="cannot decode"):
            await agent.set_clock()
        await agent.set_clock()


async def test_an_agent_that_hangs_up_within_a_frame_is_gone() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, b"x" * 100)[:20])
        writer.close()

    async with agent_that(answers) as agent:
        with pytest.raises(Unavailable, match="in the middle of a frame"):
            await agent.set_clock()


@pytest.mark.parametrize("code", [17, 255, -1, (1 << 31) - 1])
async def test_a_status_that_nobody_knows_is_an_error_all_the_same(code: int) -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, b"", code, "made up"))

    async with agent_that(answers) as agent:
        with pytest.raises(SandboxError, match="made up"):
            await agent.set_clock()


async def test_the_status_of_a_process_is_one_that_a_process_can_have() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, agent_pb2.WaitProcessResponse(status=-257).SerializeToString()))

    async with agent_that(answers) as agent:
        assert 0 <= await agent.wait_process("c", "") <= 255


async def test_figures_of_the_host_that_an_agent_tells_are_left_out() -> None:
    lie = "kata_shim_fds 1\ngo_x 1\r\nkata_hypervisor_fds 2\nkata_agent_x 1\x1b[2J\nkata_guest_y 3\n"

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, agent_pb2.Metrics(metrics=lie).SerializeToString()))

    async with agent_that(answers) as agent:
        assert of_agent(await agent.metrics(PATIENCE)) == "kata_agent_go_x 1\nkata_guest_y 3\n"


async def test_an_answer_of_more_small_parts_than_it_needs_is_not_even_decoded() -> None:
    parts = b"\x12\x00" * (MESSAGE_LENGTH_MAX // 2 - 32)  # 2 million networks: 200 MiB as messages

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, parts))

    async with agent_that(answers) as agent:
        with bounded_memory(), pytest.raises(SandboxError, match="StatsContainer of 4194240 bytes, at most 131072"):
            await agent.stats_container("c")


@pytest.mark.parametrize("method", sorted(ANSWERS_MAX))
def test_what_may_be_long_is_a_method_of_the_agents(method: str) -> None:
    assert method in AgentService.__abstractmethods__ | TelemetryService.__abstractmethods__


async def test_an_answer_as_long_as_was_asked_for_is_taken() -> None:
    whole = agent_pb2.ReadStreamResponse(data=bytes(READ_SIZE)).SerializeToString()

    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, whole))

    async with agent_that(answers) as agent:
        assert len(await agent.read_stdout("c", "", 0)) == READ_SIZE


async def test_an_error_is_told_in_bounds_and_without_commands_for_terminals() -> None:
    async def answers(stream_id: int, writer: asyncio.StreamWriter) -> None:
        await write(writer, response(stream_id, b"", 13, "\x1b[2J\x9bone\n\ttwo" + "x" * (1 << 20)))

    async with agent_that(answers) as agent:
        with pytest.raises(SandboxError) as caught:
            await agent.set_clock()
    said = str(caught.value)
    assert said.startswith("agent: \ufffd[2J\ufffdone\n\ttwo")
    assert len(said) < 1.1 * MESSAGE_MAX
