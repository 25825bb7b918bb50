"""A client whose connection is lost and dialled anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kata_py.ttrpc import redial
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import Caller
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, StatusError
from kata_py.ttrpc.redial import redialling
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.status import Code
from tests.cutter import Cutter, between

BOUND = 10.0  # seconds


class Peer:
    """A server that counts, and holds calls until they are let go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.errors: list[StatusError] = []
        self.probe_errors: list[StatusError] = []
        self.server = Server()
        for method in ("Probe", "Again", "Once"):
            self.server.add_raw("s", method, self._answer)

    async def _answer(self, payload: bytes, context: Context) -> bytes:
        self.calls.append(context.method)
        errors = self.probe_errors if context.method == "Probe" else self.errors
        if errors:
            raise errors.pop(0)
        if context.method != "Probe" and payload == b"wait":
            self.entered.set()
            await self.gate.wait()
        return payload + b"!"


async def probe(client: Caller) -> None:
    await client.call("s", "Probe", b"")


@pytest.fixture
async def peer(tmp_path: Path):
    peer = Peer()
    await peer.server.listen(UnixAddress(str(tmp_path / "server")))
    yield peer
    peer.gate.set()
    peer.server.close()
    await peer.server.wait_closed(BOUND)


@pytest.fixture
async def cutter(peer: Peer, tmp_path: Path):
    async with between(str(tmp_path / "between"), str(tmp_path / "server")) as cutter:
        yield cutter


@pytest.fixture
async def client(cutter: Cutter, tmp_path: Path):
    address = UnixAddress(str(tmp_path / "between"))
    async with redialling(address, probe, timeout=5, patience=BOUND, repeatable={"Again"}) as client:
        await probe(client)  # the connection stands all the way
        yield client


async def test_calls_are_made_as_over_any_connection(client):
    assert await client.call("s", "Once", b"a", timeout=BOUND) == b"a!"


async def test_calls_go_on_after_a_loss(client, cutter, peer):
    cutter.cut()
    async with asyncio.timeout(BOUND):
        assert await client.call("s", "Again", b"a") == b"a!"
        assert await client.call("s", "Once", b"b") == b"b!"
    assert not client.closed


async def test_a_call_that_may_take_effect_twice_is_made_again(client, cutter, peer):
    call = asyncio.create_task(client.call("s", "Again", b"wait"))
    await peer.entered.wait()
    cutter.cut()
    peer.gate.set()
    async with asyncio.timeout(BOUND):
        assert await call == b"wait!"
    assert peer.calls.count("Again") == 2


async def test_another_call_fails_with_the_connection(client, cutter, peer):
    call = asyncio.create_task(client.call("s", "Once", b"wait"))
    await peer.entered.wait()
    cutter.cut()
    with pytest.raises(ConnectionClosed):
        await call
    assert peer.calls.count("Once") == 1


async def test_whoever_is_between_may_say_that_the_peer_is_lost(client, peer, monkeypatch):
    monkeypatch.setattr(redial, "PAUSE", 0.01)
    peer.errors = [StatusError(Code.UNAVAILABLE, "the VM is not reached")] * 2
    assert await client.call("s", "Again", b"a") == b"a!"
    peer.errors = [StatusError(Code.UNAVAILABLE, "the VM is not reached")]
    with pytest.raises(StatusError, match="not reached"):
        await client.call("s", "Once", b"a")


async def test_a_call_made_meanwhile_waits_no_longer_than_it_says(client, cutter):
    await cutter.away()
    with pytest.raises(StatusError, match="is not reached in time") as caught:
        await client.call("s", "Again", b"a", timeout=0.1)
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_connection_alone_is_not_the_peer(client, cutter, peer, monkeypatch):
    monkeypatch.setattr(redial, "PAUSE", 0.01)
    peer.probe_errors = [StatusError(Code.UNAVAILABLE, "not yet")] * 2
    cutter.cut()
    async with asyncio.timeout(BOUND):
        assert await client.call("s", "Again", b"a") == b"a!"
    assert peer.probe_errors == []


async def test_a_peer_that_is_said_to_be_gone_is_not_waited_for(client, cutter, peer):
    peer.probe_errors = [StatusError(Code.FAILED_PRECONDITION, "the VM is lost")]
    cutter.cut()
    async with asyncio.timeout(BOUND / 2):
        await client.wait_closed()


async def test_after_its_patience_the_peer_is_gone(cutter, tmp_path):
    address = UnixAddress(str(tmp_path / "between"))
    async with redialling(address, probe, timeout=5, patience=0.2, repeatable={"Again"}) as client:
        await probe(client)
        await cutter.away()
        async with asyncio.timeout(BOUND):
            with pytest.raises(ConnectionClosed):
                await client.call("s", "Again", b"a")
            await client.wait_closed()
        assert client.closed


async def test_leaving_ends_what_waits(cutter, tmp_path, peer):
    address = UnixAddress(str(tmp_path / "between"))
    async with redialling(address, probe, timeout=5, patience=BOUND, repeatable={"Again"}) as client:
        call = asyncio.create_task(client.call("s", "Again", b"wait"))
        await peer.entered.wait()
    with pytest.raises(ConnectionClosed):
        await call


async def test_a_peer_that_is_not_there_at_first_is_an_error(tmp_path):
    with pytest.raises(ConnectError):
        async with redialling(UnixAddress(str(tmp_path / "x")), probe, timeout=0.1, patience=1, repeatable=()):
            raise AssertionError("it was reached")
