"""The connection to a libvirt host: turns, time limits, and what comes after a break."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.libvirt import connection as module
from kata_caa.providers.libvirt.connection import Connection
from tests.unit.caa.providers.libvirt.test_fault import refusal


class Host:
    """A connection that lives until it is broken."""

    def __init__(self, uri: str = "") -> None:
        self.alive = 1
        self.closed = threading.Event()

    def isAlive(self) -> int:
        return self.alive

    def close(self) -> int:
        self.closed.set()
        return 0


@asynccontextmanager
async def connected(opener) -> AsyncIterator[Connection]:
    connection = Connection("test", opener)
    try:
        yield connection
    finally:
        await connection.close()


async def test_one_connection_serves_until_it_is_broken():
    hosts: list[Host] = []

    def opener(uri: str) -> Host:
        hosts.append(Host())
        return hosts[-1]

    async with connected(opener) as connection:
        assert await connection.call("x", lambda host: host) is hosts[0]
        assert await connection.call("x", lambda host: host) is hosts[0]
        hosts[0].alive = 0
        assert await connection.call("x", lambda host: host) is hosts[1]

        def lost(host: Host) -> None:
            raise refusal("VIR_ERR_INTERNAL_ERROR", "client socket is closed")

        with pytest.raises(ProviderError, match="libvirt: x: client socket is closed"):
            await connection.call("x", lost)
        assert await connection.call("x", lambda host: host) is hosts[2]
    assert hosts[2].closed.is_set()


async def test_what_does_not_answer_in_time_is_told_by_name():
    release = threading.Event()
    async with connected(Host) as connection:
        with pytest.raises(ProviderError, match=r"start machine: no answer for 0\.01 s") as error:
            await connection.call("start machine", lambda host: release.wait(10), 0.01)
        assert error.value.fault is Fault.TRANSIENT
        release.set()


async def test_a_host_that_does_not_answer_at_all_is_told_by_its_uri(monkeypatch):
    release = threading.Event()
    late = Host()

    def opener(uri: str) -> Host:
        release.wait(10)
        return late

    monkeypatch.setattr(module, "OPEN_TIMEOUT", 0.01)
    async with connected(opener) as connection:
        with pytest.raises(ProviderError, match=r"connect to test: no answer .* LIBVIRT_URI"):
            await connection.call("x", lambda host: host)
        (opening,) = (thread for thread in threading.enumerate() if thread.name == "libvirt open")
        assert opening.daemon  # the program's end does not wait for it
        release.set()
        assert await asyncio.to_thread(late.closed.wait, 5)  # one that comes too late is not kept


async def test_a_turn_lasts_until_a_call_that_was_left_behind_has_ended(monkeypatch):
    monkeypatch.setattr(module, "CANCEL_TIMEOUT", 0.01)
    started, release, order = threading.Event(), threading.Event(), []

    def slow(host: Host) -> None:
        started.set()
        release.wait(10)
        order.append("made")

    async with connected(Host) as connection:

        async def create() -> None:
            async with connection.turn("sandbox") as turn:
                await turn.call("make", slow)

        async def delete() -> None:
            async with connection.turn("sandbox") as turn:
                await turn.call("delete", lambda host: order.append("deleted"))

        creating = asyncio.create_task(create())
        await asyncio.to_thread(started.wait, 10)
        creating.cancel()
        await asyncio.wait([creating])
        assert creating.cancelled()
        deleting = asyncio.create_task(delete())
        async with connection.turn("another") as turn:  # which nobody waits for
            await turn.call("x", lambda host: order.append("other"))
        release.set()
        async with asyncio.timeout(5):
            await deleting
    assert order == ["other", "made", "deleted"]


async def test_a_turn_that_never_comes_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "TURN_TIMEOUT", 0.01)
    async with connected(Host) as connection, connection.turn("sandbox"):
        with pytest.raises(ProviderError, match="under way for the machine of sandbox"):
            async with connection.turn("sandbox"):
                pass
