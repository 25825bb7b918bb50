"""A server's connection against a peer that speaks in frames."""

import asyncio

import pytest

from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, RESPONSE
from kata_py.ttrpc.inbox import MESSAGES_MAX
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.service import Method
from kata_py.ttrpc.session import Session
from kata_py.ttrpc.status import Code
from tests.unit.ttrpc.raw import PATIENCE, RawPeer


async def echo(payload, context):
    return payload


class Gate:
    """A handler that runs until it is let go, and says how far it came."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False
        self.context = None

    async def __call__(self, payload, context):
        self.context = context
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        return payload


@pytest.fixture
async def server():
    server = Server()
    server.add_raw("s", "Echo", echo)
    yield server
    server.close()
    await server.wait_closed(PATIENCE)


@pytest.fixture
async def gate(server):
    gate = Gate()
    server.add_raw("s", "Gate", gate)
    yield gate
    gate.go.set()


@pytest.fixture
async def peer(server):
    peer = RawPeer(server.accept())
    yield peer
    peer.transport.abort()


async def soon(event):
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def code_of(peer, stream_id):
    answered, response = await peer.response()
    assert answered == stream_id
    return response.code


async def lives(peer):
    peer.request(9999, "s", "Echo", b"still here")
    answered, response = await peer.response()
    return (answered, response.code, response.payload) == (9999, Code.OK, b"still here")


@pytest.mark.parametrize(("service", "method"), [("unknown", "Echo"), ("s", "Unknown"), ("", "")])
async def test_an_unknown_service_or_method_is_answered_12(peer, service, method):
    peer.request(1, service, method)
    assert await code_of(peer, 1) == Code.UNIMPLEMENTED
    assert await lives(peer)


async def test_a_request_of_length_0_is_answered_12(peer):
    peer.send(0x01, 1)
    assert await code_of(peer, 1) == Code.UNIMPLEMENTED


async def test_a_frame_over_the_limit_is_answered_and_the_connection_lives(peer):
    peer.send(0x01, 1, 0, bytes(5 << 20))
    assert await code_of(peer, 1) == Code.RESOURCE_EXHAUSTED
    assert await lives(peer)


async def test_a_reply_over_the_limit_is_answered_8_and_the_connection_lives(server, peer):
    async def large(payload, context):
        return bytes(5 << 20)

    server.add_raw("s", "Large", large)
    peer.request(1, "s", "Large")
    assert await code_of(peer, 1) == Code.RESOURCE_EXHAUSTED
    assert await lives(peer)


async def test_a_blocked_call_stops_no_other(peer, gate):
    peer.request(1, "s", "Gate", b"first")
    peer.request(3, "s", "Echo", b"second")
    assert (await peer.response())[0] == 3
    gate.go.set()
    assert (await peer.response())[0] == 1


async def test_a_status_raised_is_the_answer(server, peer):
    async def refuse(payload, context):
        raise StatusError(Code.NOT_FOUND, "no such container", (b"detail",))

    server.add_raw("s", "Refuse", refuse)
    peer.request(1, "s", "Refuse")
    _, response = await peer.response()
    assert (response.code, response.message, response.details) == (Code.NOT_FOUND, "no such container", (b"detail",))


async def test_any_other_exception_is_logged_whole_and_answered_blandly(server, peer, caplog):
    async def fail(payload, context):
        raise RuntimeError("a secret")

    server.add_raw("s", "Fail", fail)
    peer.request(1, "s", "Fail")
    _, response = await peer.response()
    assert response.code == Code.UNKNOWN
    assert "secret" not in response.message
    assert "s/Fail" in response.message
    assert "a secret" in caplog.text
    assert await lives(peer)


@pytest.mark.parametrize("answer", [None, "text", 7])
async def test_a_handler_that_returns_no_bytes_is_answered_with_an_error(server, peer, answer, caplog):
    async def nothing(payload, context):
        return answer

    server.add_raw("s", "Nothing", nothing)
    peer.request(1, "s", "Nothing")
    assert await code_of(peer, 1) == Code.UNKNOWN
    assert "instead of bytes" in caplog.text


async def test_a_handler_that_cancels_itself_is_answered_1(server, peer):
    async def cancelled(payload, context):
        raise asyncio.CancelledError

    server.add_raw("s", "Cancelled", cancelled)
    peer.request(1, "s", "Cancelled")
    assert await code_of(peer, 1) == Code.CANCELED


async def test_a_handler_knows_its_call(server, peer):
    seen = []

    async def look(payload, context):
        seen.append((str(context), context.metadata, context.deadline, context.remaining(), context.peer))
        return b""

    server.add_raw("s", "Look", look)
    peer.request(1, "s", "Look", metadata=(("Key", "1"), ("key", "2")))
    await peer.response()
    assert seen == [("s/Look", {"key": ["1", "2"]}, None, None, None)]


async def test_a_lost_connection_does_not_undo_a_started_handler(server, peer, gate):
    peer.request(1, "s", "Gate")
    await soon(gate.begun)
    peer.transport.abort()
    await peer.frame()
    await lost(gate)
    assert not gate.cancelled
    gate.go.set()
    await soon(gate.ended)
    assert not gate.cancelled


async def lost(gate):
    async with asyncio.timeout(PATIENCE):
        while not gate.context.abandoned:  # noqa: ASYNC110 has no event, nor needs one
            await asyncio.sleep(0)


async def test_a_handler_that_agreed_is_cancelled_when_the_connection_is_lost(server, peer, gate):
    async def polite(payload, context):
        context.cancel_if_abandoned()
        return await gate(payload, context)

    server.add_raw("s", "Polite", polite)
    peer.request(1, "s", "Polite")
    await soon(gate.begun)
    peer.transport.abort()
    await soon(gate.ended)
    assert gate.cancelled


async def test_a_handler_that_agrees_too_late_is_cancelled_at_once(server, peer, gate):
    after = asyncio.Event()

    async def late(payload, context):
        await gate(payload, context)
        context.cancel_if_abandoned()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            after.set()
            raise

    server.add_raw("s", "Late", late)
    peer.request(1, "s", "Late")
    await soon(gate.begun)
    peer.transport.abort()
    await lost(gate)
    gate.go.set()
    await soon(after)


async def test_a_server_told_so_cancels_every_abandoned_handler():
    server, gate = Server(cancel_abandoned=True), Gate()
    server.add_raw("s", "Gate", gate)
    peer = RawPeer(server.accept())
    peer.request(1, "s", "Gate")
    await soon(gate.begun)
    peer.transport.abort()
    await soon(gate.ended)
    assert gate.cancelled
    server.close()
    await server.wait_closed(PATIENCE)


async def test_a_handler_abandoned_before_its_first_step_leaves_nothing_behind():
    server, gate = Server(cancel_abandoned=True), Gate()
    server.add_raw("s", "Gate", gate)
    link = server.accept()
    peer = RawPeer(link)
    peer.request(1, "s", "Gate")
    await asyncio.sleep(0)  # the bytes arrive, the handler's task is made
    link.connection_lost(None)
    await asyncio.sleep(0)
    server.close()
    await server.wait_closed(PATIENCE)
    assert not gate.begun.is_set()
    peer.transport.abort()


async def test_a_passed_deadline_is_answered_4_and_the_handler_runs_on(peer, gate):
    peer.request(1, "s", "Gate", timeout_nano=1_000_000)
    _, response = await peer.response()
    assert (response.code, "s/Gate" in response.message) == (Code.DEADLINE_EXCEEDED, True)
    assert gate.context.abandoned
    assert gate.context.remaining() == 0
    gate.go.set()
    await soon(gate.ended)
    assert not gate.cancelled
    assert await lives(peer), "and its late answer is not sent"


async def test_a_call_that_ended_in_time_leaves_no_timer_behind(peer):
    timers = asyncio.get_running_loop()._scheduled
    before = [timer for timer in timers if not timer.cancelled()]
    peer.request(1, "s", "Echo", timeout_nano=10**15)
    assert await code_of(peer, 1) == Code.OK
    await asyncio.sleep(0)
    assert [timer for timer in timers if not timer.cancelled() and timer not in before] == []


async def test_a_passed_deadline_cancels_a_handler_that_agreed(server, peer, gate):
    async def polite(payload, context):
        context.cancel_if_abandoned()
        return await gate(payload, context)

    server.add_raw("s", "Polite", polite)
    peer.request(1, "s", "Polite", timeout_nano=1_000_000)
    assert await code_of(peer, 1) == Code.DEADLINE_EXCEEDED
    await soon(gate.ended)
    assert gate.cancelled


async def test_a_deadline_in_the_past_begins_nothing(peer, gate):
    peer.request(1, "s", "Gate", timeout_nano=-1)
    assert await code_of(peer, 1) == Code.DEADLINE_EXCEEDED
    assert not gate.begun.is_set()


async def test_a_deadline_far_away_is_kept(peer, gate):
    peer.request(1, "s", "Gate", timeout_nano=2**63 - 1)
    await soon(gate.begun)
    assert gate.context.remaining() > 2**32
    gate.go.set()
    assert await code_of(peer, 1) == Code.OK


async def test_a_streaming_request_to_a_unary_method_is_answered_with_an_error_not_with_silence(peer):
    peer.request(1, "s", "Echo", flags=REMOTE_OPEN)
    assert await code_of(peer, 1) == Code.UNIMPLEMENTED
    assert await lives(peer)


async def test_a_unary_method_called_with_remote_closed_is_answered_as_unary(peer):
    peer.request(1, "s", "Echo", b"x", flags=REMOTE_CLOSED)
    assert (await peer.response())[1].payload == b"x"


async def collect(stream, context):
    return b"|".join([message async for message in stream])


async def count(stream, context):
    for number in range(int(await stream.receive())):
        await stream.send(b"%d" % number)


@pytest.fixture
def streams(server):
    server.add_raw_stream("s", "Collect", collect)
    server.add_raw_stream("s", "Count", count)


@pytest.mark.usefixtures("streams")
async def test_a_unary_call_of_a_streaming_method_is_answered_with_an_error(peer):
    peer.request(1, "s", "Collect")
    assert await code_of(peer, 1) == Code.UNIMPLEMENTED


@pytest.mark.usefixtures("streams")
async def test_a_client_stream_is_answered_with_a_response(peer):
    peer.request(1, "s", "Collect", flags=REMOTE_OPEN)
    for message in (b"a", b"", b"c"):
        peer.send(DATA, 1, 0, message)
    peer.send(DATA, 1, REMOTE_CLOSED | NO_DATA)
    assert (await peer.response())[1].payload == b"a||c"


@pytest.mark.usefixtures("streams")
async def test_a_payload_in_a_streaming_request_is_its_first_message(peer):
    peer.request(1, "s", "Collect", b"first", flags=REMOTE_OPEN)
    peer.send(DATA, 1, REMOTE_CLOSED, b"last")
    assert (await peer.response())[1].payload == b"first|last"


@pytest.mark.usefixtures("streams")
async def test_a_server_stream_ends_with_an_empty_data_frame(peer):
    peer.request(1, "s", "Count", b"2", flags=REMOTE_CLOSED)
    got = [await peer.frame() for _ in range(3)]
    assert [(frame.type, frame.flags, frame.body) for frame in got] == [
        (DATA, 0, b"0"),
        (DATA, 0, b"1"),
        (DATA, REMOTE_CLOSED | NO_DATA, b""),
    ]


@pytest.mark.usefixtures("streams")
async def test_a_server_stream_that_fails_ends_with_a_status(peer, caplog):
    peer.request(1, "s", "Count", b"not a number", flags=REMOTE_CLOSED)
    assert await code_of(peer, 1) == Code.UNKNOWN
    assert "ValueError" in caplog.text


@pytest.mark.usefixtures("streams")
async def test_a_client_that_breaks_a_streams_rules_ends_the_waiting_of_its_handler(server, peer):
    told = asyncio.get_running_loop().create_future()

    async def wait(stream, context):
        try:
            await stream.receive()
        except StatusError as error:
            told.set_result((error.code, context.abandoned))
            with pytest.raises(StatusError):
                await stream.send(b"into nothing")
            raise

    server.add_raw_stream("s", "Wait", wait)
    peer.request(1, "s", "Wait", flags=REMOTE_OPEN)
    peer.send(DATA, 1, 0, bytes(5 << 20))
    assert await code_of(peer, 1) == Code.RESOURCE_EXHAUSTED
    async with asyncio.timeout(PATIENCE):
        assert await told == (Code.RESOURCE_EXHAUSTED, True)
    assert await lives(peer)


async def test_a_stream_whose_connection_is_lost_tells_its_handler(server, peer):
    told = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def wait(stream, context):
        begun.set()
        try:
            await stream.receive()
        except ConnectionClosed as error:
            told.set_result(str(error))
            raise StatusError(Code.UNAVAILABLE, "nobody hears this") from error

    server.add_raw_stream("s", "Wait", wait)
    peer.request(1, "s", "Wait", flags=REMOTE_OPEN)
    await soon(begun)
    peer.transport.abort()
    async with asyncio.timeout(PATIENCE):
        assert await told == "the client is gone"


@pytest.mark.usefixtures("streams")
async def test_data_after_a_stream_was_refused_is_answered_3(peer):
    peer.request(1, "s", "Unknown", flags=REMOTE_OPEN)
    assert await code_of(peer, 1) == Code.UNIMPLEMENTED
    peer.send(DATA, 1, 0, b"x")
    assert await code_of(peer, 1) == Code.INVALID_ARGUMENT


async def test_a_handler_that_reads_too_slowly_loses_its_stream_and_not_the_connection(server, peer, gate):
    async def slow(stream, context):
        await gate(b"", context)
        return await collect(stream, context)

    server.add_raw_stream("s", "Slow", slow)
    peer.request(1, "s", "Slow", flags=REMOTE_OPEN)
    for _ in range(MESSAGES_MAX + 1):
        peer.send(DATA, 1, 0, b"x")
    await soon(gate.begun)
    peer.request(3, "s", "Echo")
    assert await code_of(peer, 3) == Code.OK, "after at most a second"
    gate.go.set()
    assert await code_of(peer, 1) == Code.RESOURCE_EXHAUSTED


async def test_whoever_does_not_read_the_answers_may_not_ask_for_more(server, peer):
    calls = 0

    async def large(payload, context):
        nonlocal calls
        calls += 1
        return bytes(1 << 20)

    server.add_raw("s", "Large", large)
    peer.transport.pause_reading()
    for number in range(200):
        peer.request(2 * number + 1, "s", "Large", bytes(10_000))
    for _ in range(2_000):  # turns of the loop, in which a server without back-pressure would take all
        await asyncio.sleep(0)
    assert 0 < calls < 20
    peer.transport.resume_reading()
    for _ in range(200):
        frame = await peer.frame()
        assert frame.type == RESPONSE
    assert calls == 200


async def test_a_peer_that_is_not_admitted_is_hung_up_on(caplog):
    server = Server(admit=lambda peer: peer is not None)
    peer = RawPeer(server.accept())
    peer.request(1, "s", "Echo")
    assert await peer.frame() is None
    assert "refused a connection" in caplog.text
    server.close()
    await server.wait_closed(PATIENCE)


async def test_closing_lets_running_calls_be_answered_first(server, peer, gate):
    peer.request(1, "s", "Gate", b"done")
    await soon(gate.begun)
    server.close()
    gate.go.set()
    assert (await peer.response())[1].payload == b"done"
    assert await peer.frame() is None


async def test_what_outlives_its_time_is_named_and_cancelled(gate):
    async def stubborn(payload, context):
        try:
            await gate(payload, context)
        except asyncio.CancelledError:
            ended.append(session.running())
            raise

    ended = []
    gone = asyncio.get_running_loop().create_future()
    session = Session(lambda service, method: Method(unary=stubborn), gone.set_result)
    peer = RawPeer(session.link)
    peer.request(1, "s", "Stubborn")
    await soon(gate.begun)
    session.abort()
    async with asyncio.timeout(PATIENCE):
        assert await gone is session
    assert ended == [["s/Stubborn"]]


async def test_a_service_that_cannot_be_made_is_answered_blandly(caplog):
    def find(service, method):
        raise ImportError("a secret")

    session = Session(find, lambda session: None)
    peer = RawPeer(session.link)
    peer.request(1, "s", "m")
    _, response = await peer.response()
    assert response.code == Code.UNKNOWN
    assert "secret" not in response.message
    assert "a secret" in caplog.text
    peer.transport.abort()
