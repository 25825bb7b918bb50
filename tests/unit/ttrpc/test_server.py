import asyncio
import socket

import pytest

from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Client, connect
from kata_py.ttrpc.context import Peer
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.server import Server, same_user
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.transport import memory
from tests.unit.ttrpc.raw import PATIENCE


async def echo(payload, context):
    return payload


class Word:
    """A message of one word, with protobuf's two methods."""

    def __init__(self, text=""):
        self.text = text

    def SerializeToString(self):
        return self.text.encode()

    @classmethod
    def FromString(cls, data):
        return cls(data.decode("ascii"))


class Words:
    """A service as generated code makes it."""

    ttrpc_name = "test.Words"

    async def Upper(self, request, context):
        return Word(request.text.upper())

    async def Join(self, requests, context):
        return Word(" ".join([request.text async for request in requests]))

    async def Split(self, request, context):
        for text in request.text.split():
            yield Word(text)

    async def Double(self, requests, context):
        async for request in requests:
            yield Word(request.text * 2)

    def ttrpc_methods(self):
        return {
            "Upper": (self.Upper, Word, False, False),
            "Join": (self.Join, Word, True, False),
            "Split": (self.Split, Word, False, True),
            "Double": (self.Double, Word, True, True),
        }


@pytest.fixture
async def server():
    server = Server()
    yield server
    server.close()
    await server.wait_closed(PATIENCE)


def joined(server):
    client = Client()
    memory.join(client.link, server.accept())
    return client


async def test_a_service_is_called_by_its_messages(server):
    server.add(Words())
    async with joined(server) as client:
        assert await client.call("test.Words", "Upper", b"word") == b"WORD"


async def test_a_payload_that_cannot_be_decoded_is_answered_13(server):
    server.add(Words())
    async with joined(server) as client:
        for method, call in (("Upper", client.call), ("Split", collected)):
            with pytest.raises(StatusError) as caught:
                await (call("test.Words", method, b"\xff") if method == "Upper" else call(client, method, b"\xff"))
            assert caught.value.code == Code.INTERNAL


async def collected(client, method, payload):
    async with client.stream("test.Words", method, payload) as stream:
        return [message async for message in stream]


async def test_the_three_kinds_of_streaming_methods(server):
    server.add(Words())
    async with joined(server) as client:
        assert await collected(client, "Split", b"one two") == [b"one", b"two"]
        async with client.stream("test.Words", "Join") as stream:
            for word in (b"one", b"two"):
                await stream.send(word)
            stream.close_send()
            assert await stream.response() == b"one two"
        async with client.stream("test.Words", "Double") as stream:
            for word in (b"a", b"b"):
                await stream.send(word)
                assert await stream.receive() == word * 2
            stream.close_send()
            assert await stream.receive() is None


async def test_an_answering_generator_is_closed_when_its_stream_fails(server):
    closed = asyncio.Event()

    class Endless(Words):
        async def Split(self, request, context):
            try:
                while True:
                    yield Word("x" * (5 << 20))
            finally:
                closed.set()

    server.add(Endless())
    async with joined(server) as client:
        with pytest.raises(StatusError) as caught:
            await collected(client, "Split", b"")
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
        assert closed.is_set()


async def test_a_lazy_service_is_made_at_its_first_call_and_once(server):
    made = []

    def factory():
        made.append(Words())
        return made[-1]

    server.add_lazy("test.Words", factory)
    async with joined(server) as client:
        assert not made
        for _ in range(2):
            assert await client.call("test.Words", "Upper", b"a") == b"A"
        assert len(made) == 1


async def test_a_lazy_service_that_cannot_be_made_is_an_error_and_tried_again(server, caplog):
    attempts = []

    def factory():
        attempts.append(1)
        if len(attempts) == 1:
            raise ImportError("no module named messages")
        return Words()

    server.add_lazy("test.Words", factory)
    async with joined(server) as client:
        with pytest.raises(StatusError) as caught:
            await client.call("test.Words", "Upper", b"a")
        assert caught.value.code == Code.UNKNOWN
        assert "no module named messages" in caplog.text
        assert await client.call("test.Words", "Upper", b"a") == b"A"


async def test_a_raw_method_goes_before_the_service_that_has_it_too_and_does_not_make_it(server):
    server.add_lazy("test.Words", lambda: pytest.fail("made"))
    server.add_raw("test.Words", "Upper", echo)
    async with joined(server) as client:
        assert await client.call("test.Words", "Upper", b"as is") == b"as is"


async def test_raw_methods_and_a_lazy_service_share_a_name(server):
    server.add_raw("test.Words", "Echo", echo)
    server.add_lazy("test.Words", Words)
    async with joined(server) as client:
        assert await client.call("test.Words", "Echo", b"a") == b"a"
        assert await client.call("test.Words", "Upper", b"a") == b"A"


async def test_closing_closes_idle_connections_at_once():
    server = Server()
    client = joined(server)
    await asyncio.sleep(0)
    server.close()
    async with asyncio.timeout(PATIENCE):
        await client.wait_closed()
    await server.wait_closed(PATIENCE)
    assert client.closed


async def test_closing_lets_running_calls_be_answered():
    server, begun, go = Server(), asyncio.Event(), asyncio.Event()

    async def slow(payload, context):
        begun.set()
        await go.wait()
        return payload

    server.add_raw("s", "Slow", slow)
    async with joined(server) as client:
        call = asyncio.create_task(client.call("s", "Slow", b"done"))
        await begun.wait()
        server.close()
        waiting = asyncio.create_task(server.wait_closed(PATIENCE))
        await asyncio.sleep(0)
        assert not waiting.done()
        go.set()
        assert await call == b"done"
        await waiting
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()


async def test_a_handler_may_close_the_server_and_its_answer_still_arrives():
    server = Server()

    async def shutdown(payload, context):
        server.close()
        return b"bye"

    server.add_raw("s", "Shutdown", shutdown)
    async with joined(server) as client:
        assert await client.call("s", "Shutdown", b"") == b"bye"
        await server.wait_closed(PATIENCE)


async def test_what_outlives_the_wait_is_cancelled():
    server, begun, cancelled = Server(), asyncio.Event(), asyncio.Event()

    async def endless(payload, context):
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    server.add_raw("s", "Endless", endless)
    async with joined(server) as client:
        call = asyncio.create_task(client.call("s", "Endless", b""))
        await begun.wait()
        server.close()
        await server.wait_closed(0.01)
        assert cancelled.is_set()
        with pytest.raises(ConnectionClosed):
            await call


async def test_a_handler_that_will_not_end_is_named(caplog):
    server, begun, go = Server(), asyncio.Event(), asyncio.Event()

    async def stubborn(payload, context):
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return b""

    server.add_raw("s", "Stubborn", stubborn)
    async with joined(server) as client:
        call = asyncio.create_task(client.call("s", "Stubborn", b""))
        await begun.wait()
        server.close()
        await server.wait_closed(0.01)
        assert "still running after they were cancelled: s/Stubborn" in caplog.text
        go.set()
        with pytest.raises(ConnectionClosed):
            await call
        await server.wait_closed(PATIENCE)


async def test_a_connection_made_to_a_closed_server_is_closed():
    server = Server()
    server.close()
    client = joined(server)
    async with asyncio.timeout(PATIENCE):
        await client.wait_closed()
    await server.wait_closed(PATIENCE)


async def test_a_listening_socket_is_served_and_closed_with_the_server():
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0kata-py-test-serve")
    sock.listen()
    server = Server(admit=same_user)
    peers = []

    async def who(payload, context):
        peers.append(context.peer)
        return b""

    server.add_raw("s", "Who", who)
    await server.serve(sock)
    other = socket.socket(socket.AF_UNIX)
    other.connect("\0kata-py-test-serve")
    async with await Client.over(other) as client:
        await client.call("s", "Who", b"")
    assert same_user(peers[0])
    server.close()
    await server.wait_closed(PATIENCE)
    assert sock.fileno() == -1


def test_only_the_same_user_is_the_same_user():
    assert not same_user(None)
    assert not same_user(Peer(1, 65534, 65534))


@pytest.mark.parametrize(
    ("service", "method", "message"),
    [
        ("test.Nothing", "Upper", "unknown service 'test.Nothing'"),
        ("test.Words", "Lower", "unknown method 'Lower' of service test.Words"),
        ("raw", "Lower", "unknown method 'Lower' of service raw"),
    ],
)
async def test_what_is_not_there_is_told_by_name(server, service, method, message):
    server.add(Words())
    server.add_raw("raw", "Echo", echo)
    async with joined(server) as client:
        with pytest.raises(StatusError) as caught:
            await client.call(service, method, b"")
    assert (caught.value.code, caught.value.message) == (Code.UNIMPLEMENTED, message)


async def test_an_address_is_served_raw_streams_and_all(server):
    async def count(stream, context):
        return b"%d" % len([message async for message in stream])

    server.add_raw_stream("s", "Count", count)
    address = UnixAddress("@kata-py-test-listen")
    await server.listen(address)
    async with connect(address, timeout=PATIENCE) as client, client.stream("s", "Count") as stream:
        await stream.send(b"")
        stream.close_send()
        assert await stream.response() == b"1"
