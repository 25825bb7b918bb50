"""A client against a peer that speaks in frames."""

import asyncio
import socket

import pytest

from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.address import SerialAddress, UnixAddress
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.envelope import Response
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, MessageTooLong, StatusError
from kata_py.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, REQUEST, RESPONSE
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code
from tests.unit.ttrpc.raw import PATIENCE, RawPeer


@pytest.fixture
async def client():
    async with Client("the peer") as client:
        yield client


@pytest.fixture
async def peer(client):
    peer = RawPeer(client.link)
    yield peer
    peer.transport.abort()


def calling(client, method="Method", payload=b"", **options):
    return asyncio.create_task(client.call("s", method, payload, **options))


async def request_of(peer):
    frame = await peer.frame()
    assert frame.type == REQUEST
    return frame.stream_id, envelope.decode_request(frame.body)


async def test_a_call_sends_a_request_and_returns_the_answers_payload(client, peer):
    call = calling(client, payload=b"in", timeout=5, metadata={"key": "value"})
    stream_id, request = await request_of(peer)
    assert (request.service, request.method, request.payload) == ("s", "Method", b"in")
    assert request.timeout_nano == 5_000_000_000
    assert request.metadata == (("key", "value"),)
    peer.respond(stream_id, Response(b"out"))
    assert await call == b"out"


async def test_no_timeout_is_told_as_none(client, peer):
    call = calling(client)
    stream_id, request = await request_of(peer)
    assert request.timeout_nano == 0
    peer.respond(stream_id, Response())
    assert await call == b""


async def test_an_absent_status_is_success(client, peer):
    call = calling(client)
    peer.send(RESPONSE, (await request_of(peer))[0], 0, b"\x12\x03out")
    assert await call == b"out"


async def test_a_status_is_raised_with_its_details(client, peer):
    call = calling(client)
    peer.respond((await request_of(peer))[0], Response(b"ignored", Code.NOT_FOUND, "no such container", (b"d",)))
    with pytest.raises(StatusError, match="NOT_FOUND: no such container") as caught:
        await call
    assert (caught.value.code, caught.value.details) == (Code.NOT_FOUND, (b"d",))


async def test_a_code_grpc_does_not_know_is_unknown(client, peer):
    call = calling(client)
    peer.respond((await request_of(peer))[0], Response(b"", 4711, "?"))
    with pytest.raises(StatusError) as caught:
        await call
    assert caught.value.code == Code.UNKNOWN


async def test_a_deadline_ends_the_call_and_the_late_answer_is_ignored(client, peer):
    call = calling(client, timeout=0.01)
    with pytest.raises(StatusError, match=r"s/Method: no answer within 0\.01 s") as caught:
        await call
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    late, _ = await request_of(peer)
    call = calling(client)
    stream_id, _ = await request_of(peer)
    peer.respond(late, Response(b"late"))
    peer.respond(stream_id, Response(b"in time"))
    assert await call == b"in time"


async def test_a_cancelled_call_is_abandoned(client, peer):
    call = calling(client)
    abandoned, _ = await request_of(peer)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    peer.respond(abandoned, Response(b"late"))
    call = calling(client)
    peer.respond((await request_of(peer))[0], Response(b"next"))
    assert await call == b"next"


async def test_calls_that_ended_without_an_answer_leave_nothing_behind(client, peer):
    for _ in range(3):
        with pytest.raises(StatusError):
            await client.call("s", "Method", b"", timeout=0)
    async with client.stream("s", "Method"):
        pass
    assert (client._answers, client._inboxes, client._connection._streams) == ({}, {}, {})


async def test_a_lost_connection_fails_every_pending_and_every_later_call(client, peer):
    calls = [calling(client), calling(client)]
    await request_of(peer)
    peer.transport.abort()
    for call in calls:
        with pytest.raises(ConnectionClosed, match="no answer: connection to the peer was closed by the peer"):
            await call
    async with asyncio.timeout(PATIENCE):
        await client.wait_closed()
    assert client.closed
    with pytest.raises(ConnectionClosed, match="s/Method not sent"):
        await client.call("s", "Method", b"")


async def test_a_connection_lost_in_the_middle_of_a_frame_says_so(client, peer):
    call = calling(client)
    stream_id, _ = await request_of(peer)
    peer.transport.write(frames.encode(RESPONSE, stream_id, 0, bytes(100))[:50])
    peer.transport.close()
    with pytest.raises(ConnectionClosed, match="in the middle of a frame"):
        await call


async def test_a_connection_lost_by_an_error_names_it(client, peer):
    call = calling(client)
    await request_of(peer)
    error = ConnectionResetError("reset by peer")
    client.link.connection_lost(error)
    with pytest.raises(ConnectionClosed, match="was lost: reset by peer") as caught:
        await call
    assert caught.value.__cause__ is error
    with pytest.raises(ConnectionClosed, match="not sent") as caught:
        await calling(client)
    assert caught.value.__cause__ is error


async def test_closing_fails_pending_calls(client, peer):
    call = calling(client)
    await request_of(peer)
    await client.aclose()
    with pytest.raises(ConnectionClosed, match="connection to the peer is closed"):
        await call
    assert await peer.frame() is None


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(client, peer):
    peer.transport.pause_reading()
    call = calling(client, payload=bytes(1 << 20))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await client.aclose()
    with pytest.raises(ConnectionClosed):
        await call


async def test_closing_a_client_that_never_connected_is_quick():
    client = Client()
    await client.aclose()
    with pytest.raises(ConnectionClosed):
        await client.call("s", "m", b"")


async def test_a_request_over_the_limit_is_refused_here_and_the_connection_lives(client, peer):
    with pytest.raises(MessageTooLong):
        await client.call("s", "Method", bytes(5 << 20))
    call = calling(client)
    peer.respond((await request_of(peer))[0], Response(b"fine"))
    assert await call == b"fine"


async def test_a_response_over_the_limit_fails_its_call_and_no_other(client, peer):
    one, two = calling(client), calling(client)
    first, second = (await request_of(peer))[0], (await request_of(peer))[0]
    peer.send(RESPONSE, first, 0, bytes(5 << 20))
    peer.respond(second, Response(b"fine"))
    with pytest.raises(StatusError) as caught:
        await one
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert await two == b"fine"


async def test_callers_wait_while_the_peer_does_not_read(client, peer):
    peer.transport.pause_reading()
    calls = [calling(client, payload=bytes(1 << 20)) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert client.link.paused
    late = calling(client, timeout=0.01)
    with pytest.raises(StatusError) as caught:
        await late
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    peer.transport.resume_reading()
    for _ in calls:
        peer.respond((await request_of(peer))[0], Response(b"ok"))
    assert await asyncio.gather(*calls) == [b"ok"] * 20


async def test_callers_that_wait_are_told_when_the_connection_is_lost(client, peer):
    peer.transport.pause_reading()
    calls = [calling(client, payload=bytes(1 << 20)) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    peer.transport.abort()
    for call in calls:
        with pytest.raises(ConnectionClosed):
            await call


async def test_a_stream_of_requests_is_announced_and_closed(client, peer):
    async with client.stream("s", "Method", timeout=5) as stream:
        frame = await peer.frame()
        assert (frame.type, frame.flags) == (REQUEST, REMOTE_OPEN)
        await stream.send(b"one")
        stream.close_send()
        stream.close_send()
        assert [(f.type, f.flags, f.body) for f in (await peer.frame(), await peer.frame())] == [
            (DATA, 0, b"one"),
            (DATA, REMOTE_CLOSED | NO_DATA, b""),
        ]
        with pytest.raises(StatusError, match="closed for sending"):
            await stream.send(b"late")
        peer.respond(frame.stream_id, Response(b"answer"))
        assert await stream.response() == b"answer"


async def test_leaving_a_stream_closes_what_is_open_of_it(client, peer):
    async with client.stream("s", "Method"):
        await peer.frame()
    frame = await peer.frame()
    assert (frame.type, frame.flags) == (DATA, REMOTE_CLOSED | NO_DATA)
    peer.send(DATA, 1, 0, b"late")
    call = calling(client)
    peer.respond((await request_of(peer))[0], Response(b"next"))
    assert await call == b"next"


async def test_a_stream_of_responses_is_read_to_its_end(client, peer):
    async with client.stream("s", "Method", b"request") as stream:
        frame = await peer.frame()
        assert (frame.flags, envelope.decode_request(frame.body).payload) == (REMOTE_CLOSED, b"request")
        for message in (b"a", b""):
            peer.send(DATA, 1, 0, message)
        peer.send(DATA, 1, REMOTE_CLOSED | NO_DATA)
        assert [message async for message in stream] == [b"a", b""]
        with pytest.raises(StatusError, match="closed for sending"):
            await stream.send(b"never announced")


async def test_a_stream_may_end_with_a_response_that_is_its_last_message(client, peer):
    async with client.stream("s", "Method", b"") as stream:
        await peer.frame()
        peer.send(DATA, 1, 0, b"a")
        peer.respond(1, Response(b"b"))
        assert [message async for message in stream] == [b"a", b"b"]


async def test_a_stream_may_end_with_a_status_after_its_messages(client, peer):
    async with client.stream("s", "Method") as stream:
        await peer.frame()
        peer.send(DATA, 1, 0, b"a")
        peer.respond(1, Response(b"", Code.ABORTED, "no more"))
        assert await stream.receive() == b"a"
        for _ in range(2):
            with pytest.raises(StatusError, match="no more"):
                await stream.receive()
        with pytest.raises(StatusError, match="no more"):
            await stream.send(b"x")


async def test_a_stream_has_a_deadline(client, peer):
    async with client.stream("s", "Method", b"", timeout=0.01) as stream:
        assert (await request_of(peer))[1].timeout_nano == 10_000_000
        with pytest.raises(StatusError) as caught:
            await stream.receive()
        assert caught.value.code == Code.DEADLINE_EXCEEDED


async def test_a_stream_whose_connection_is_lost_says_so(client, peer):
    async with client.stream("s", "Method", b"") as stream:
        await peer.frame()
        peer.transport.abort()
        with pytest.raises(ConnectionClosed):
            await stream.receive()


async def test_a_reader_that_stalls_does_not_stop_other_calls_for_long(client, peer):
    async with client.stream("s", "Method", b"") as stream:
        await peer.frame()
        for _ in range(100):
            peer.send(DATA, 1, 0, bytes(50_000))
        call = calling(client)
        stream_id, _ = await request_of(peer)
        peer.respond(stream_id, Response(b"other"))
        assert await call == b"other"
        with pytest.raises(StatusError, match="stream full"):
            await stream.receive()


async def test_connecting_is_bounded_by_the_context():
    address = UnixAddress("@kata-py-test-connect")
    with pytest.raises(ConnectError, match="@kata-py-test-connect"):
        async with connect(address, timeout=PATIENCE):
            pytest.fail("connected to nobody")
    server = Server()
    await server.listen(address)
    async with connect(address, timeout=PATIENCE) as client:
        assert not client.closed
    assert client.closed
    server.close()
    await server.wait_closed(PATIENCE)


async def test_a_connected_socket_is_enough():
    ours, theirs = socket.socketpair()
    async with await Client.over(ours, "the pair") as client:
        call = calling(client)
        await asyncio.sleep(0)
        theirs.close()
        with pytest.raises(ConnectionClosed, match="connection to the pair"):
            await call
    assert ours.fileno() == -1


async def test_the_streams_of_a_serial_line_are_numbered_by_the_clock(short_tmp):
    path = str(short_tmp / "line.sock")
    server = Server()
    await server.listen(UnixAddress(path))
    firsts = []
    for _ in range(2):
        async with connect(SerialAddress(path), timeout=PATIENCE) as client:
            firsts.append(client._connection.request("s", "m", b""))
        await asyncio.sleep(0.002)  # two of its milliseconds
    assert firsts[0] < firsts[1] < 2**31
    assert all(number % 2 for number in firsts)
    server.close()
    await server.wait_closed(PATIENCE)
