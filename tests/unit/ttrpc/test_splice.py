import asyncio
from contextlib import asynccontextmanager

import pytest

from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc import splice as splice_module
from kata_py.ttrpc.client import Client
from kata_py.ttrpc.envelope import Request, Response
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, REQUEST, RESPONSE
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.splice import Splice
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.transport import memory
from tests.unit.ttrpc.raw import PATIENCE, RawPeer


class Ends:
    """A splice between two peers that speak in frames."""

    def __init__(self, *args, server=True, **options):
        self.splice = Splice(*args, **options)
        self.client = RawPeer(self.splice.client)
        if server:
            self.connect()

    def connect(self):
        self.server = RawPeer(self.splice.server())

    async def asked(self):
        """The next request that the server gets, with its stream id."""
        frame = await self.server.frame()
        assert frame is not None, "the connection ended"
        assert frame.type == REQUEST, str(frame)
        return frame.stream_id, envelope.decode_request(frame.body)


@asynccontextmanager
async def spliced(server, *args, **options):
    """A real client, through a splice, to a real server."""
    splice = Splice(*args, **options)
    async with Client("splice") as client:
        memory.join(client.link, splice.client)
        memory.join(splice.server(), server.accept())
        yield client, splice
        splice.close()
        async with asyncio.timeout(PATIENCE):
            await splice.wait()
    server.close()
    await server.wait_closed(PATIENCE)


async def no_hook(service, method, payload):
    raise AssertionError(f"{service}/{method} was not to be decoded")


async def echo(payload, context):
    return payload


def echo_server():
    server = Server()
    server.add_raw("s", "Echo", echo)
    return server


async def test_calls_and_answers_pass_whole():
    async with spliced(echo_server()) as (client, splice):
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(client.call("s", "Echo", bytes([i]) * i * 1000, timeout=5)) for i in range(100)]
        assert [len(call.result()) for call in calls] == [i * 1000 for i in range(100)]
        assert splice.in_flight == 0
        assert splice.counters.requests == splice.counters.frames_to_client == 100


async def test_a_message_of_the_full_length_passes():
    async with spliced(echo_server()) as (client, _):
        message = b"x" * (frames.MESSAGE_LENGTH_MAX - 64)
        assert await client.call("s", "Echo", message, timeout=PATIENCE) == message


async def test_statuses_and_metadata_pass():
    async def refuse(payload, context):
        raise StatusError(Code.NOT_FOUND, ",".join(context.metadata["k"]))

    server = Server()
    server.add_raw("s", "Refuse", refuse)
    async with spliced(server) as (client, _):
        with pytest.raises(StatusError, match="NOT_FOUND: v"):
            await client.call("s", "Refuse", b"", timeout=5, metadata={"k": "v"})


async def test_a_frame_of_a_request_is_not_touched_but_for_its_stream_id():
    ends = Ends(no_hook, [("s", "Other")])
    body = b"\x0a\x01s\x12\x01m\x1a\x02ab\x7a\x02zz\x20\x05"  # with a field that nobody knows
    ends.client.send(REQUEST, 41, REMOTE_OPEN, body)
    frame = await ends.server.frame()
    assert (frame.stream_id, frame.type, frame.flags, frame.body) == (1, REQUEST, REMOTE_OPEN, body)
    ends.client.send(DATA, 41, REMOTE_CLOSED, b"more")
    assert (await ends.server.frame())[:4] == (1, DATA, REMOTE_CLOSED, b"more")
    ends.server.send(DATA, 1, 0, b"some")
    ends.server.send(RESPONSE, 1, 0, b"\x0a\x00")
    assert (await ends.client.frame())[:4] == (41, DATA, 0, b"some")
    assert (await ends.client.frame())[:4] == (41, RESPONSE, 0, b"\x0a\x00")
    assert ends.splice.in_flight == 0


async def test_a_stream_that_the_server_ends_without_an_answer_is_over():
    ends = Ends()
    ends.client.request(1, "s", "m", flags=REMOTE_CLOSED)
    await ends.asked()
    ends.server.send(DATA, 1, REMOTE_CLOSED | NO_DATA)
    assert (await ends.client.frame())[:3] == (1, DATA, REMOTE_CLOSED | NO_DATA)
    assert ends.splice.in_flight == 0
    ends.server.send(DATA, 1, 0, b"late")
    ends.client.request(3, "s", "m")
    assert (await ends.asked())[0] == 3
    ends.server.respond(3, Response(b"yes"))
    assert await ends.client.response() == (3, Response(b"yes"))


async def test_the_hook_sees_and_changes_what_it_asked_for_alone():
    seen = []

    async def hook(service, method, payload):
        seen.append((service, method, payload))
        return b"changed" if payload == b"a" else None

    ends = Ends(hook, [("s", "Create")])
    for stream_id, method, payload in ((1, "Create", b"a"), (3, "Create", b"b"), (5, "Start", b"c")):
        ends.client.request(stream_id, "s", method, payload, timeout_nano=7 << 33, metadata=(("k", "v"), ("k", "w")))
    asked = {request.payload: request for _, request in [await ends.asked() for _ in range(3)]}
    assert set(asked) == {b"changed", b"b", b"c"}
    assert seen == [("s", "Create", b"a"), ("s", "Create", b"b")]
    assert asked[b"changed"].metadata == (("k", "v"), ("k", "w"))
    assert 6 << 33 < asked[b"changed"].timeout_nano < 7 << 33  # what the hook took is off
    assert ends.splice.counters.hooked == 2


async def test_a_target_that_is_hidden_at_the_end_is_hooked():
    async def hook(service, method, payload):
        return b"caught"

    ends = Ends(hook, [("s", "Create")])
    ends.client.send(REQUEST, 1, 0, b"\x0a\x01x\x12\x01y\x1a\x01p\x12\x06Create\x0a\x01s")
    assert (await ends.asked())[1] == Request("s", "Create", b"caught")


async def test_a_request_that_waits_for_its_hook_holds_up_no_other():
    go = asyncio.Event()

    async def hook(service, method, payload):
        await go.wait()

    async with spliced(echo_server(), hook, [("s", "Slow")]) as (client, _):
        client_call = asyncio.create_task(client.call("s", "Slow", b"", timeout=5))
        await asyncio.sleep(0)
        # The server takes rising ids only, so that one gets the lower id that goes first.
        assert await client.call("s", "Echo", b"fast", timeout=5) == b"fast"
        go.set()
        with pytest.raises(StatusError, match="UNIMPLEMENTED"):
            await client_call


async def test_data_waits_behind_its_request():
    go = asyncio.Event()

    async def hook(service, method, payload):
        await go.wait()

    ends = Ends(hook, [("s", "m")])
    ends.client.request(1, "s", "m", flags=REMOTE_OPEN)
    ends.client.send(DATA, 1, 0, b"one")
    ends.client.send(DATA, 1, REMOTE_CLOSED, b"two")
    ends.client.request(3, "s", "other")
    assert (await ends.asked())[1].method == "other"
    go.set()
    assert (await ends.asked())[1].method == "m"
    assert (await ends.server.frame()).body == b"one"
    assert (await ends.server.frame())[1:4] == (DATA, REMOTE_CLOSED, b"two")


@pytest.mark.parametrize(
    ("raised", "answered"),
    [
        (StatusError(Code.ABORTED, "no", (b"d",)), Response(b"", Code.ABORTED, "no", (b"d",))),
        (ValueError("a secret"), Response(b"", Code.UNKNOWN, "s/m could not be passed on; the proxy's log says why")),
        (TimeoutError("own"), Response(b"", Code.UNKNOWN, "s/m could not be passed on; the proxy's log says why")),
    ],
)
async def test_what_a_hook_raises_is_the_answer(raised, answered):
    async def hook(service, method, payload):
        raise raised

    ends = Ends(hook, [("s", "m")])
    ends.client.request(1, "s", "m", timeout_nano=10**10)
    assert await ends.client.response() == (1, answered)
    ends.client.request(3, "s", "n")
    assert (await ends.asked())[1].method == "n"
    assert ends.splice.counters.refused == 1


async def test_a_hook_has_no_longer_than_the_client_waits():
    async def hook(service, method, payload):
        await asyncio.Event().wait()

    ends = Ends(hook, [("s", "m")])
    ends.client.request(1, "s", "m", timeout_nano=1000)
    assert (await ends.client.response())[1].code == Code.DEADLINE_EXCEEDED


async def test_what_a_hook_makes_too_long_is_an_error_of_that_call():
    async def hook(service, method, payload):
        return payload * 3

    ends = Ends(hook, [("s", "m")], limit=1000)
    ends.client.request(1, "s", "m", b"x" * 500)
    assert (await ends.client.response())[1].code == Code.RESOURCE_EXHAUSTED


async def test_what_is_too_long_either_way_is_an_error_of_that_call():
    ends = Ends(limit=1000)
    ends.client.request(1, "s", "m", b"x" * 1000)
    assert (await ends.client.response())[1].code == Code.RESOURCE_EXHAUSTED
    ends.client.request(3, "s", "m", flags=REMOTE_OPEN)
    await ends.asked()
    ends.client.send(DATA, 3, 0, b"x" * 1001)
    assert (await ends.client.response())[1].code == Code.RESOURCE_EXHAUSTED
    assert (await ends.server.frame())[:3] == (1, DATA, REMOTE_CLOSED | NO_DATA)
    ends.client.request(5, "s", "m")
    assert (await ends.asked())[0] == 3
    ends.server.respond(3, Response(b"x" * 1000))
    assert (await ends.client.response())[1].code == Code.RESOURCE_EXHAUSTED
    assert ends.splice.in_flight == 0


@pytest.mark.parametrize(("kind", "stream_id"), [(REQUEST, 2), (REQUEST, 1), (DATA, 1), (DATA, 9)])
async def test_a_client_that_breaks_the_rules_is_answered_on_that_stream(kind, stream_id):
    ends = Ends()
    ends.client.request(1, "s", "m")
    await ends.asked()
    ends.client.send(kind, stream_id, 0, b"")
    answered, response = await ends.client.response()
    assert (answered, response.code) == (stream_id, Code.INVALID_ARGUMENT)


async def test_requests_wait_until_the_server_stands():
    ends = Ends(server=False)
    ends.client.request(1, "s", "m", b"x" * 300_000)
    for _ in range(10):
        await asyncio.sleep(0)
    assert ends.client.transport.get_write_buffer_size() > 200_000  # in the client's own buffer, not in ours
    ends.connect()
    assert len((await ends.asked())[1].payload) == 300_000


async def test_what_was_read_before_the_server_stood_is_not_lost():
    ends = Ends(server=False)
    ends.splice.client.release()  # as a transport that does not pause at once
    ends.client.request(1, "s", "m", b"early", flags=REMOTE_OPEN)
    ends.client.send(DATA, 1, 0, b"more")
    await settled(lambda: len(ends.splice._early))
    ends.splice.client.hold()
    ends.connect()
    ends.client.request(3, "s", "m", b"late")
    assert (await ends.asked())[1].payload == b"early"
    assert (await ends.server.frame()).body == b"more"
    assert (await ends.asked())[1].payload == b"late"


async def test_the_clients_end_is_the_servers():
    ended = asyncio.Event()

    async def hook(service, method, payload):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ends = Ends(hook, [("s", "m")])
    ends.client.request(1, "s", "m")
    ends.client.request(3, "s", "other")
    assert (await ends.asked())[1].method == "other"
    ends.client.request(5, "s", "last")
    ends.client.transport.close()
    assert (await ends.asked())[1].method == "last"  # what it had sent before
    assert await ends.server.frame() is None
    assert await ends.splice.wait() == ("client", None)
    assert ended.is_set()


async def test_the_servers_end_answers_what_is_in_flight_then_ends_the_client():
    ends = Ends()
    ends.client.request(1, "s", "m")
    ends.client.request(3, "s", "m", flags=REMOTE_OPEN)
    await ends.asked()
    await ends.asked()
    ends.server.respond(1, Response(b"last words"))
    ends.server.transport.close()
    assert await ends.client.response() == (1, Response(b"last words"))
    stream_id, response = await ends.client.response()
    assert (stream_id, response.code) == (3, Code.UNAVAILABLE)
    assert await ends.client.frame() is None
    assert await ends.splice.wait() == ("server", None)


async def test_a_client_outlives_its_server_if_the_owner_wants():
    lost = asyncio.Queue()
    ends = Ends(server_lost=lost.put_nowait)
    for stream_id in (1, 3):
        ends.client.request(stream_id, "s", "m")
        await ends.asked()
    ends.server.transport.abort()
    assert await lost.get() is None
    assert {(await ends.client.response())[1].code for _ in range(2)} == {Code.UNAVAILABLE}
    ends.client.request(5, "s", "again", b"x" * 300_000)
    await settled(ends.client.transport.get_write_buffer_size)
    assert ends.client.transport.get_write_buffer_size() > 200_000  # nobody reads it until there is a server
    ends.connect()
    stream_id, request = await ends.asked()
    assert request.method == "again"
    ends.server.respond(stream_id, Response(b"yes"))
    assert await ends.client.response() == (5, Response(b"yes"))
    assert not ends.splice.ended


async def test_calls_in_flight_are_told_in_the_owner_s_words_that_the_server_was_lost():
    ends = Ends(server_lost=lambda error: None, lost="the machine is gone")
    ends.client.request(1, "s", "m")
    await ends.asked()
    ends.server.transport.abort()
    assert await ends.client.response() == (1, Response(b"", Code.UNAVAILABLE, "the machine is gone"))
    ends.splice.abort()


async def test_calls_that_may_be_repeated_are_for_the_next_server():
    ends = Ends(server_lost=lambda error: None, repeated=[("s", "Wait")])
    ends.client.request(1, "s", "Wait", b"one")
    ends.client.request(3, "s", "Make")
    ends.client.request(5, "s", "Wait", b"five")
    ends.client.request(7, "s", "Wait", b"answered")
    ends.client.request(9, "s", "Wait", b"streams", flags=REMOTE_OPEN)
    ids = {request.payload: stream_id for stream_id, request in [await ends.asked() for _ in range(5)]}
    ends.server.respond(ids[b"answered"], Response(b"done"))
    assert await ends.client.response() == (7, Response(b"done"))
    ends.server.transport.abort()
    refused = [await ends.client.response() for _ in range(2)]
    assert [(stream_id, response.code) for stream_id, response in refused] == [(3, 14), (9, 14)]
    assert ends.splice.in_flight == 2
    ends.connect()
    again = [await ends.asked() for _ in range(2)]
    assert [request.payload for _, request in again] == [b"one", b"five"]
    ends.server.respond(again[1][0], Response(b"ended"))
    assert await ends.client.response() == (5, Response(b"ended"))
    assert ends.splice.in_flight == 1
    ends.splice.abort()


async def test_calls_that_may_be_repeated_wait_no_longer_than_others():
    ends = Ends(server_lost=lambda error: None, repeated=[("s", "Wait")])
    ends.client.request(1, "s", "Wait")
    await ends.asked()
    ends.server.transport.abort()
    await settled(lambda: ends.splice._server is None)
    ends.splice.refuse("nobody comes")
    assert await ends.client.response() == (1, Response(b"", Code.UNAVAILABLE, "nobody comes"))
    ends.connect()
    ends.client.request(3, "s", "m", b"later")
    assert (await ends.asked())[1].payload == b"later"
    ends.splice.abort()


async def test_a_client_that_may_wait_no_longer_is_refused_until_a_server_stands():
    ends = Ends(server_lost=lambda error: None, server=False)
    ends.client.request(1, "s", "m", b"early", flags=REMOTE_OPEN)
    ends.splice.refuse("nobody comes")
    refusal = Response(b"", Code.UNAVAILABLE, "nobody comes")
    assert await ends.client.response() == (1, refusal)
    ends.client.send(DATA, 1, body=b"too late")
    ends.client.request(3, "s", "m")
    assert await ends.client.response() == (3, refusal)
    ends.connect()
    ends.splice.refuse("a server stands")
    ends.client.request(5, "s", "m", b"in time")
    assert (await ends.asked())[1].payload == b"in time"
    assert not ends.splice._absent
    ends.server.transport.abort()
    assert (await ends.client.response())[0] == 5
    ends.client.request(7, "s", "m", b"waits again")
    ends.connect()
    assert (await ends.asked())[1].payload == b"waits again"
    ends.splice.abort()


async def test_what_was_read_before_is_refused_too():
    ends = Ends(server_lost=lambda error: None, server=False)
    ends.splice._early.append(frames.Frame(1, REQUEST, 0, b"", 0))
    ends.splice.refuse("nobody comes")
    assert (await ends.client.response())[0] == 1
    ends.splice.abort()


async def test_a_second_server_at_a_time_is_turned_away():
    ends = Ends()
    other = RawPeer(ends.splice.server())
    assert await other.frame() is None
    ends.client.request(1, "s", "m")
    await ends.asked()


async def settled(count):
    """The count, once it has stopped growing."""
    before = -1
    while before != (before := count()):
        for _ in range(50):
            await asyncio.sleep(0)
    return before


async def test_a_server_that_does_not_read_stops_the_client():
    ends = Ends()
    ends.server.transport.pause_reading()
    for stream_id in range(1, 200, 2):
        ends.client.request(stream_id, "s", "m", b"x" * 100_000)
    assert await settled(lambda: ends.splice.counters.bytes_to_server) < 1_000_000
    ends.server.transport.resume_reading()
    for _ in range(100):
        await ends.asked()


async def test_a_client_that_does_not_read_stops_the_server():
    ends = Ends()
    ends.client.request(1, "s", "m", flags=REMOTE_OPEN)
    await ends.asked()
    ends.client.transport.pause_reading()
    for _ in range(100):
        ends.server.send(DATA, 1, 0, b"x" * 100_000)
    assert await settled(lambda: ends.splice.counters.bytes_to_client) < 1_000_000
    ends.client.transport.resume_reading()
    for _ in range(100):
        assert (await ends.client.frame()).length == 100_000


async def test_a_client_that_does_not_read_its_refusals_is_not_read():
    ends = Ends()
    ends.client.transport.pause_reading()
    for _ in range(20_000):
        ends.client.send(REQUEST, 2)
    assert await settled(lambda: ends.splice.counters.refused) < 20_000


async def test_what_waits_for_hooks_is_bounded(monkeypatch):
    monkeypatch.setattr(splice_module, "_WAITING_MAX", 100_000)
    go = asyncio.Event()

    async def hook(service, method, payload):
        await go.wait()

    ends = Ends(hook, [("s", "m")])
    for stream_id in range(1, 200, 2):
        ends.client.request(stream_id, "s", "m", b"x" * 10_000)
    assert await settled(lambda: ends.splice.counters.hooked) < 30
    go.set()
    for _ in range(100):
        await ends.asked()


async def test_a_side_that_does_not_take_what_is_left_is_cut_off(monkeypatch):
    monkeypatch.setattr(splice_module, "_LINGER", 0.01)
    ends = Ends()
    ends.client.request(1, "s", "m", flags=REMOTE_OPEN)
    await ends.asked()
    ends.client.transport.pause_reading()
    for _ in range(5):
        ends.server.send(DATA, 1, 0, b"x" * 100_000)
    await settled(lambda: ends.splice.counters.bytes_to_client)
    cut_off = asyncio.Event()
    ends.splice.client.connection_lost = lambda error: cut_off.set()
    ends.splice.close("server")
    async with asyncio.timeout(PATIENCE):
        await cut_off.wait()


async def test_abort_ends_both_at_once():
    ends = Ends()
    ends.splice.abort()
    assert await ends.client.frame() is None
    assert await ends.server.frame() is None


async def test_a_real_client_learns_of_the_end():
    server = echo_server()
    splice = Splice()
    async with Client("splice") as client:
        memory.join(client.link, splice.client)
        memory.join(splice.server(), server.accept())
        await client.call("s", "Echo", b"", timeout=5)
        server.close()
        await server.wait_closed(PATIENCE)
        await splice.wait()
        with pytest.raises(ConnectionClosed):
            await client.call("s", "Echo", b"", timeout=5)
