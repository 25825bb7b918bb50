import asyncio
import socket
import weakref

import pytest

from kata_py.ttrpc.connection import JOIN_MAX, ClientConnection
from kata_py.ttrpc.context import Peer
from kata_py.ttrpc.link import Link


class Wire(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self, **extra):
        super().__init__(extra)
        self.written = []
        self.told = []

    def write(self, data):
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        self.told.append("pause")

    def resume_reading(self):
        self.told.append("resume")

    def close(self):
        self.told.append("close")

    def abort(self):
        self.told.append("abort")


class Owner:
    """What a client or a session is to a link."""

    def __init__(self):
        self.connection = ClientConnection()
        self.events = []
        self.link = Link(
            self.connection,
            self.received,
            lambda error: self.events.append(("lost", error)),
            lambda: self.events.append("opened"),
            lambda writable: self.events.append(("writable", writable)),
        )

    def received(self, count):
        self.events.append(("received", count))
        self.connection.received(count)

    def call(self, payload=b""):
        self.connection.request("s", "m", payload)
        self.link.flush_soon()


@pytest.fixture
async def owner():
    return Owner()


@pytest.fixture
async def wire(owner):
    wire = Wire()
    owner.link.connection_made(wire)
    return wire


async def test_what_is_queued_in_one_turn_is_written_at_once(owner, wire):
    for _ in range(3):
        owner.call(b"x")
    assert wire.written == []
    await asyncio.sleep(0)
    assert len(wire.written) == 1
    assert wire.written[0].count(b"\x1a\x01x") == 3
    await asyncio.sleep(0)
    assert len(wire.written) == 1


async def test_much_is_written_at_once_and_not_joined(owner, wire):
    owner.call(b"x")
    large = bytes(JOIN_MAX * 8)
    owner.call(large)
    assert len(wire.written) == 2
    assert wire.written[1] == large
    owner.call(b"y")
    owner.connection.request("s", "m", large, timeout_nano=1)
    await asyncio.sleep(0)
    assert wire.written[3] == large
    assert len(wire.written) == 5, "what was queued before, the long payload, what follows it"


async def test_what_was_said_before_the_transport_was_there_is_sent_then(owner):
    owner.call(b"early")
    await asyncio.sleep(0)
    wire = Wire()
    owner.link.connection_made(wire)
    assert owner.events == ["opened"]
    assert b"early" in wire.written[0]


async def test_received_bytes_go_to_the_owner_and_the_cores_answers_out(owner, wire):
    space = owner.link.get_buffer(-1)
    space[:3] = b"\0\0\0"
    owner.link.buffer_updated(3)
    assert owner.events == ["opened", ("received", 3)]
    assert owner.link.eof_received() is False
    owner.connection.request("s", "m", b"")
    owner.link.buffer_updated(1)
    await asyncio.sleep(0)
    assert len(wire.written) == 1


async def test_senders_wait_while_the_transport_is_full(owner, wire):
    await owner.link.drain()
    owner.link.pause_writing()
    assert owner.link.paused
    senders = [asyncio.create_task(owner.link.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    senders[0].cancel()
    await asyncio.sleep(0)
    assert not senders[1].done()
    owner.link.resume_writing()
    await senders[1]
    assert not owner.link.paused
    assert owner.events == ["opened", ("writable", False), ("writable", True)]


async def test_a_lost_connection_wakes_senders_and_is_told_once(owner, wire):
    owner.link.pause_writing()
    sender = asyncio.create_task(owner.link.drain())
    await asyncio.sleep(0)
    error = ConnectionResetError()
    owner.link.connection_lost(error)
    await sender
    owner.link.connection_lost(None)
    assert owner.events[-1] == ("lost", error)
    assert owner.link.closed
    owner.call()
    await asyncio.sleep(0)
    assert wire.written == []


async def test_a_lost_connection_lets_go_of_its_transport_at_once(owner):
    wire = Wire()
    alive = weakref.ref(wire)
    owner.link.connection_made(wire)
    del wire
    assert alive() is not None
    owner.link.connection_lost(None)
    assert alive() is None


async def test_reading_resumes_when_all_who_held_it_let_go(owner, wire):
    owner.link.hold()
    owner.link.hold()
    owner.link.release()
    assert wire.told == ["pause"]
    owner.link.release()
    assert wire.told == ["pause", "resume"]


async def test_closing_sends_first_and_aborting_does_not(owner, wire):
    owner.call()
    owner.link.close()
    assert len(wire.written) == 1
    owner.link.abort()
    assert wire.told == ["close", "abort"]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_link_closed_before_its_transport_came_aborts_it(owner, end):
    getattr(owner.link, end)()
    assert owner.events == [("lost", None)]
    wire = Wire()
    owner.link.connection_made(wire)
    assert wire.told == ["abort"]
    owner.link.connection_lost(None)
    assert owner.events == [("lost", None)]


async def test_the_peer_of_a_unix_socket_is_known(owner):
    import os

    assert owner.link.peer() is None
    one, other = socket.socketpair()
    with one, other:
        owner.link.connection_made(Wire(socket=one))
        assert owner.link.peer() == Peer(os.getpid(), os.geteuid(), os.getegid())


async def test_a_link_that_is_held_knows_that_its_peer_hung_up(owner):
    one, other = socket.socketpair()
    with one:
        owner.link.connection_made(Wire(socket=one))
        owner.link.hold()
        other.send(b"last words")
        assert not owner.link.hung_up()
        other.close()
        assert owner.link.hung_up()


async def test_a_link_without_a_socket_has_hung_up_when_it_is_closed(owner):
    assert not owner.link.hung_up()
    owner.link.close()
    assert owner.link.hung_up()


async def test_a_link_that_is_held_from_the_beginning_reads_nothing_of_a_real_socket():
    """asyncio of Python 3.11.2 forgets a pause in `connection_made`."""
    here, there = socket.socketpair()
    there.send(b"x" * 100)
    owner = Owner()
    owner.link.hold()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: owner.link, sock=here)
    for _ in range(10):
        await asyncio.sleep(0)
    assert owner.events == ["opened"]
    owner.link.release()
    for _ in range(10):
        await asyncio.sleep(0)
    assert ("received", 100) in owner.events
    owner.link.abort()
    there.close()
    await asyncio.sleep(0)
