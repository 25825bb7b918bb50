"""The core, bytes in and bytes out: every row of what a server must do, and what a client must bear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_py.ttrpc import envelope, frames
from kata_py.ttrpc.connection import (
    ClientConnection,
    MessageReceived,
    RequestReceived,
    ResponseReceived,
    ServerConnection,
    StreamRefused,
)
from kata_py.ttrpc.envelope import Request, Response
from kata_py.ttrpc.errors import ConnectionClosed, MessageTooLong
from kata_py.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, REQUEST, RESPONSE, FrameReader
from kata_py.ttrpc.status import Code
from tests.unit.ttrpc.splitting import feed, splits

LIMIT = 4 << 20


def receive(connection, *pieces):
    return feed(connection.space, connection.received, pieces)


def sent(connection):
    """What the connection has to send, as frames."""
    reader = FrameReader()
    return feed(reader.space, reader.filled, connection.data_to_send())


def answers(connection):
    """What the connection has to send, as (stream id, code) of responses."""
    out = []
    for frame in sent(connection):
        assert (frame.type, frame.flags) == (RESPONSE, 0)
        out.append((frame.stream_id, Code(envelope.decode_response(frame.body).code)))
    return out


def request_frame(stream_id, request=Request("s", "m"), flags=0):  # noqa: B008 a constant
    return frames.encode(REQUEST, stream_id, flags, b"".join(envelope.encode_request(request)))


def response_frame(stream_id, response):
    return frames.encode(RESPONSE, stream_id, 0, b"".join(envelope.encode_response(response)))


PING = [RequestReceived(99, Request("s", "m"), 0)]


def lives(server):
    """The connection goes on as if nothing had been."""
    assert receive(server, request_frame(99)) == PING
    server.respond(99, Response())
    assert answers(server) == [(99, Code.OK)]
    return True


class TestWhatAServerMustDo:
    def test_a_frame_over_the_limit_is_answered_8_on_its_stream_and_the_connection_lives(self):
        server = ServerConnection()
        assert receive(server, frames.encode(REQUEST, 1, 0, bytes(LIMIT + 1))) == []
        assert answers(server) == [(1, Code.RESOURCE_EXHAUSTED)]
        assert lives(server)

    def test_a_data_frame_over_the_limit_ends_its_stream_and_the_handler_is_told(self):
        server = ServerConnection()
        receive(server, request_frame(1, flags=REMOTE_OPEN))
        (event,) = receive(server, frames.encode(DATA, 1, 0, bytes(LIMIT + 1)))
        assert isinstance(event, StreamRefused)
        assert event.code == Code.RESOURCE_EXHAUSTED
        assert answers(server) == [(1, Code.RESOURCE_EXHAUSTED)]
        server.respond(1, Response())
        assert sent(server) == [], "a stream is answered once"
        assert lives(server)

    def test_an_own_reply_over_the_limit_becomes_8_on_that_stream_and_the_connection_lives(self):
        server = ServerConnection()
        receive(server, request_frame(1))
        server.respond(1, Response(bytes(LIMIT)))
        assert answers(server) == [(1, Code.RESOURCE_EXHAUSTED)]
        assert lives(server)

    def test_a_reply_that_just_fits_is_sent(self):
        server = ServerConnection()
        receive(server, request_frame(1))
        overhead = len(b"".join(envelope.encode_response(Response(bytes(LIMIT - 100))))) - (LIMIT - 100)
        server.respond(1, Response(bytes(LIMIT - overhead)))
        assert answers(server) == [(1, Code.OK)]

    @pytest.mark.parametrize("kind", [REQUEST, DATA])
    def test_an_even_stream_id_is_answered_3(self, kind):
        server = ServerConnection()
        assert receive(server, frames.encode(kind, 2, 0, b"")) == []
        assert answers(server) == [(2, Code.INVALID_ARGUMENT)]
        assert lives(server)

    @pytest.mark.parametrize("stream_id", [5, 3, 1])
    def test_a_stream_id_not_above_the_last_one_is_answered_3(self, stream_id):
        server = ServerConnection()
        receive(server, request_frame(5))
        server.respond(5, Response())
        assert answers(server) == [(5, Code.OK)]
        assert receive(server, request_frame(stream_id)) == []
        assert answers(server) == [(stream_id, Code.INVALID_ARGUMENT)]
        assert lives(server)

    def test_a_stream_id_used_again_while_it_is_answered_ends_that_stream(self):
        server = ServerConnection()
        receive(server, request_frame(1))
        (event,) = receive(server, request_frame(1))
        assert isinstance(event, StreamRefused)
        assert answers(server) == [(1, Code.INVALID_ARGUMENT)]

    def test_a_request_that_cannot_be_decoded_is_answered_3(self):
        server = ServerConnection()
        assert receive(server, frames.encode(REQUEST, 1, 0, b"\xff\xff")) == []
        assert answers(server) == [(1, Code.INVALID_ARGUMENT)]
        assert lives(server)

    def test_a_request_of_length_0_is_an_empty_request(self):
        server = ServerConnection()
        assert receive(server, frames.encode(REQUEST, 1, 0, b"")) == [RequestReceived(1, Request("", ""), 0)]

    def test_data_for_an_unknown_stream_is_answered_3(self):
        server = ServerConnection()
        assert receive(server, frames.encode(DATA, 7, 0, b"x")) == []
        assert answers(server) == [(7, Code.INVALID_ARGUMENT)]
        assert lives(server)

    @pytest.mark.parametrize("flags", [0, REMOTE_CLOSED])
    def test_data_on_a_stream_not_open_for_it_is_answered_3_and_the_handler_is_told(self, flags):
        server = ServerConnection()
        receive(server, request_frame(1, flags=flags))
        (event,) = receive(server, frames.encode(DATA, 1, 0, b"x"))
        assert isinstance(event, StreamRefused)
        assert answers(server) == [(1, Code.INVALID_ARGUMENT)]
        assert lives(server)

    @pytest.mark.parametrize("stream_id", [1, 2, 7])
    @pytest.mark.parametrize("kind", [RESPONSE, 0x00, 0x04, 0xFF])
    def test_an_unknown_type_and_a_response_are_ignored(self, kind, stream_id):
        server = ServerConnection()
        receive(server, request_frame(1))
        assert receive(server, frames.encode(kind, stream_id, 0xFF, b"whatever")) == []
        assert sent(server) == []
        server.respond(1, Response())
        assert answers(server) == [(1, Code.OK)]

    def test_two_servers_facing_each_other_fall_silent(self):
        one, other = ServerConnection(), ServerConnection()
        receive(one, frames.encode(REQUEST, 2, 0, b""))
        for _ in range(3):
            receive(other, *one.data_to_send())
            receive(one, *other.data_to_send())
        assert one.data_to_send() == other.data_to_send() == []


class TestAServerStream:
    def test_messages_come_and_go_and_it_ends_with_a_data_frame(self):
        server = ServerConnection()
        assert receive(server, request_frame(1, flags=REMOTE_OPEN)) == [
            RequestReceived(1, Request("s", "m"), REMOTE_OPEN)
        ]
        assert receive(
            server,
            frames.encode(DATA, 1, 0, b"one"),
            frames.encode(DATA, 1, 0, b""),
            frames.encode(DATA, 1, REMOTE_CLOSED | NO_DATA, b""),
        ) == [MessageReceived(1, b"one", False), MessageReceived(1, b"", False), MessageReceived(1, None, True)]
        server.send_message(1, b"two")
        server.send_message(1, b"")
        server.finish(1)
        assert [(f.type, f.flags, bytes(f.body)) for f in sent(server)] == [
            (DATA, 0, b"two"),
            (DATA, 0, b""),
            (DATA, REMOTE_CLOSED | NO_DATA, b""),
        ]

    def test_the_last_message_may_carry_the_close(self):
        server = ServerConnection()
        receive(server, request_frame(1, flags=REMOTE_OPEN))
        assert receive(server, frames.encode(DATA, 1, REMOTE_CLOSED, b"last")) == [MessageReceived(1, b"last", True)]

    def test_it_may_end_with_a_status(self):
        server = ServerConnection()
        receive(server, request_frame(1, flags=REMOTE_CLOSED))
        server.respond(1, Response(b"", Code.NOT_FOUND))
        assert answers(server) == [(1, Code.NOT_FOUND)]

    def test_nothing_is_sent_on_it_after_its_end(self):
        server = ServerConnection()
        receive(server, request_frame(1, flags=REMOTE_OPEN))
        server.finish(1)
        sent(server)
        server.send_message(1, b"late")
        server.finish(1)
        server.respond(1, Response())
        assert sent(server) == []

    def test_a_message_over_the_limit_is_refused_to_the_sender_and_the_stream_lives(self):
        server = ServerConnection()
        receive(server, request_frame(1, flags=REMOTE_OPEN))
        with pytest.raises(MessageTooLong, match=f"{LIMIT + 1} bytes exceeds the limit of {LIMIT}"):
            server.send_message(1, bytes(LIMIT + 1))
        server.send_message(1, b"ok")
        (frame,) = sent(server)
        assert frame.body == b"ok"


class TestAClient:
    def test_streams_are_numbered_odd_and_rising(self):
        client = ClientConnection()
        assert [client.request("s", "m", b"") for _ in range(3)] == [1, 3, 5]
        assert [(f.type, f.stream_id, f.flags) for f in sent(client)] == [
            (REQUEST, 1, 0),
            (REQUEST, 3, 0),
            (REQUEST, 5, 0),
        ]

    def test_all_of_a_request_is_on_the_wire(self):
        client = ClientConnection()
        client.request("s", "m", b"payload", timeout_nano=7, metadata={"k": "v"}, flags=REMOTE_CLOSED)
        (frame,) = sent(client)
        assert frame.flags == REMOTE_CLOSED
        assert envelope.decode_request(frame.body) == Request("s", "m", b"payload", 7, (("k", "v"),))

    def test_answers_come_in_any_order(self):
        client = ClientConnection()
        one, two = client.request("s", "m", b""), client.request("s", "m", b"")
        events = receive(client, response_frame(two, Response(b"2")), response_frame(one, Response(b"1")))
        assert events == [ResponseReceived(two, Response(b"2")), ResponseReceived(one, Response(b"1"))]

    def test_a_request_over_the_limit_is_refused_and_uses_up_no_stream(self):
        client = ClientConnection()
        with pytest.raises(MessageTooLong) as caught:
            client.request("s", "m", bytes(LIMIT))
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
        assert (caught.value.limit, caught.value.length > LIMIT) == (LIMIT, True)
        assert sent(client) == []
        assert client.request("s", "m", b"") == 1

    def test_a_response_over_the_limit_fails_its_call_and_no_other(self):
        client = ClientConnection()
        one, two = client.request("s", "m", b""), client.request("s", "m", b"")
        (event,) = receive(client, frames.encode(RESPONSE, one, 0, bytes(LIMIT + 1)))
        assert (event.stream_id, event.response.code) == (one, Code.RESOURCE_EXHAUSTED)
        assert receive(client, response_frame(two, Response(b"2"))) == [ResponseReceived(two, Response(b"2"))]

    def test_a_response_that_cannot_be_decoded_fails_its_call(self):
        client = ClientConnection()
        client.request("s", "m", b"")
        (event,) = receive(client, frames.encode(RESPONSE, 1, 0, b"\xff"))
        assert event.response.code == Code.INTERNAL

    def test_data_on_a_unary_call_fails_it(self):
        client = ClientConnection()
        client.request("s", "m", b"")
        (event,) = receive(client, frames.encode(DATA, 1, 0, b"x"))
        assert event.response.code == Code.INTERNAL
        assert receive(client, response_frame(1, Response())) == []

    def test_late_and_strange_frames_are_ignored(self):
        client = ClientConnection()
        client.request("s", "m", b"")
        client.abandon(1)
        client.request("s", "m", b"")
        sent(client)
        strange = [
            response_frame(1, Response(b"late")),
            response_frame(1, Response(b"again")),
            response_frame(2, Response()),
            response_frame(77, Response()),
            frames.encode(RESPONSE, 77, 0, bytes(LIMIT + 1)),
            request_frame(3),
            frames.encode(0x42, 3, 0, b"?"),
        ]
        assert receive(client, *strange) == []
        assert sent(client) == []
        assert receive(client, response_frame(3, Response(b"3"))) == [ResponseReceived(3, Response(b"3"))]

    def test_a_stream_sends_until_it_closes_and_receives_until_the_server_does(self):
        client = ClientConnection()
        client.request("s", "m", b"", flags=REMOTE_OPEN)
        client.send_message(1, b"one")
        client.send_message(1, None, closed=True)
        assert [(f.type, f.flags) for f in sent(client)] == [
            (REQUEST, REMOTE_OPEN),
            (DATA, 0),
            (DATA, REMOTE_CLOSED | NO_DATA),
        ]
        assert receive(
            client, frames.encode(DATA, 1, 0, b"a"), frames.encode(DATA, 1, REMOTE_CLOSED | NO_DATA, b"")
        ) == [
            MessageReceived(1, b"a", False),
            MessageReceived(1, None, True),
        ]
        client.send_message(1, b"late")
        assert sent(client) == []

    def test_stream_ids_that_are_used_up_say_so(self):
        client = ClientConnection(first_id=2**32 - 1)
        assert client.request("s", "m", b"") == 2**32 - 1
        with pytest.raises(ConnectionClosed, match="used up"):
            client.request("s", "m", b"")


kinds = st.sampled_from([REQUEST, RESPONSE, DATA]) | st.integers(0, 255)
bodies = (
    st.binary(max_size=40)
    | st.builds(lambda *a: b"".join(envelope.encode_request(Request(*a))), st.text(max_size=3), st.text(max_size=3))
    | st.builds(lambda payload: b"".join(envelope.encode_response(Response(payload))), st.binary(max_size=20))
)
likely = st.lists(st.builds(frames.encode, kinds, st.integers(0, 9), st.integers(0, 7), bodies), max_size=12).map(
    b"".join
)


@given(likely | st.binary(max_size=200), st.data())
def test_no_bytes_in_any_split_make_a_server_raise_or_misbehave(stream, data):
    server = ServerConnection(limit=64)
    begun = set()
    for event in receive(server, *data.draw(splits(stream))):
        if isinstance(event, RequestReceived):
            assert event.stream_id % 2 == 1
            assert event.stream_id not in begun
            begun.add(event.stream_id)
        else:
            assert event.stream_id in begun
    for stream_id in begun:
        server.respond(stream_id, Response())
    for frame in sent(server):
        assert frame.type == RESPONSE
        envelope.decode_response(frame.body)


@given(likely | st.binary(max_size=200), st.data())
def test_no_bytes_in_any_split_make_a_client_raise_or_misbehave(stream, data):
    client = ClientConnection(limit=64)
    unary = {client.request("s", "m", b"") for _ in range(2)}
    streaming = {client.request("s", "m", b"", flags=REMOTE_OPEN) for _ in range(2)}
    sent(client)
    ended = set()
    for event in receive(client, *data.draw(splits(stream))):
        assert event.stream_id in unary | streaming
        assert event.stream_id not in ended
        if isinstance(event, ResponseReceived) or event.closed:
            ended.add(event.stream_id)
    assert sent(client) == [], "a client never answers"


@given(st.lists(st.binary(max_size=30), max_size=5), st.data())
def test_what_one_end_sends_the_other_receives(payloads, data):
    client, server = ClientConnection(), ServerConnection()
    ids = [client.request("s", "m", payload) for payload in payloads]
    got = receive(server, *data.draw(splits(b"".join(client.data_to_send()))))
    assert [(event.stream_id, event.request.payload) for event in got] == list(zip(ids, payloads, strict=True))
    for event in data.draw(st.permutations(got)):
        server.respond(event.stream_id, Response(event.request.payload))
    back = receive(client, *data.draw(splits(b"".join(server.data_to_send()))))
    assert {event.stream_id: event.response.payload for event in back} == dict(zip(ids, payloads, strict=True))


def test_a_long_payload_is_handed_to_the_transport_as_it_is():
    client = ClientConnection()
    payload = bytes(1 << 20)
    client.request("s", "m", payload)
    assert client.queued > 1 << 20
    pieces = client.data_to_send()
    assert any(piece is payload for piece in pieces)
    assert client.queued == 0
    client.request("s", "m", payload, timeout_nano=1)
    (frame,) = sent(client)
    assert envelope.decode_request(frame.body).timeout_nano == 1


def test_the_middle_of_a_frame_is_known():
    server = ServerConnection()
    receive(server, request_frame(1)[:12])
    assert server.mid_frame


def test_frames_are_logged_both_ways_when_asked(caplog):
    caplog.set_level("DEBUG", logger="kata_py.ttrpc.connection")
    server = ServerConnection()
    receive(server, request_frame(1))
    server.respond(1, Response())
    assert [record.message for record in caplog.records] == [
        "< stream 1 request, 6 bytes",
        "> stream 1 response, 2 bytes",
    ]
