import asyncio
import gc
import weakref

import pytest

from kata_py.ttrpc.client import Client
from kata_py.ttrpc.errors import ConnectionClosed
from kata_py.ttrpc.server import Server
from kata_py.ttrpc.testing import channel


class Nothing:
    ttrpc_name = "test.Nothing"

    def ttrpc_methods(self):
        return {}


async def echo(payload, context):
    return payload


async def test_a_channel_joins_a_client_to_a_server_of_ones_own():
    server = Server()
    server.add_raw("s", "Echo", echo)
    async with channel(Nothing(), server=server) as client:
        assert await client.call("s", "Echo", b"x" * 3_000_000) == b"x" * 3_000_000
    with pytest.raises(ConnectionClosed):
        await client.call("s", "Echo", b"")


async def test_a_closed_connection_leaves_nothing_behind():
    server = Server()
    server.add_raw("s", "Echo", echo)
    gc.collect()
    async with channel(server=server) as client:
        await client.call("s", "Echo", b"")
        left = [weakref.ref(client), weakref.ref(client.link)]
    del client
    await asyncio.sleep(0)  # the loop lets go of its last callbacks
    gc.collect()
    assert [reference() for reference in left] == [None, None]
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Client)]
