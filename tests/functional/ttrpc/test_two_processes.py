"""Client and server as they are in life: two processes, either of which may die."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code
from tests.functional.ttrpc.peer import SERVICE

PATIENCE = 30.0  # seconds
MIB = 1 << 20
_serial = itertools.count()


@pytest.fixture
def peer(short_tmp):
    """A server process; its address is `peer.address`."""
    path = short_tmp / f"peer-{next(_serial)}.sock"
    command = [sys.executable, "-m", "tests.functional.ttrpc.peer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.address = UnixAddress(str(path))
        yield process
        process.kill()


async def test_kill_9_of_the_server_fails_pending_calls_at_once(peer):
    async with connect(peer.address, timeout=PATIENCE) as client:
        calls = [asyncio.create_task(client.call(SERVICE, "Never", b"")) for _ in range(10)]
        await client.call(SERVICE, "Echo", b"")
        peer.kill()
        async with asyncio.timeout(PATIENCE):
            for call in calls:
                with pytest.raises(ConnectionClosed):
                    await call
            await client.wait_closed()


async def test_a_stopped_server_ends_no_more_than_the_calls_with_a_deadline(peer):
    async with connect(peer.address, timeout=PATIENCE) as client:
        os.kill(peer.pid, signal.SIGSTOP)
        patient = asyncio.create_task(client.call(SERVICE, "Echo", b"late"))
        with pytest.raises(StatusError) as caught:
            await client.call(SERVICE, "Echo", b"", timeout=0.05)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        os.kill(peer.pid, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            assert await patient == b"late"


CALLER = """
import asyncio, sys
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
async def main():
    async with connect(UnixAddress(sys.argv[1]), timeout=30) as client:
        await client.call("test.Peer", "WriteWhenTold", sys.argv[2].encode())
asyncio.run(main())
"""


async def test_kill_9_of_the_client_does_not_undo_what_it_began(peer, tmp_path):
    told, wrote = tmp_path / "told", tmp_path / "wrote"
    arguments = ("-c", CALLER, peer.address.path, f"{told}\n{wrote}")
    caller = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    await there(Path(f"{told}.begun"))
    caller.kill()
    await caller.wait()
    told.touch()
    await there(wrote)
    async with connect(peer.address, timeout=PATIENCE) as client:
        assert await client.call(SERVICE, "Echo", b"well") == b"well"


async def there(path):
    async with asyncio.timeout(PATIENCE):
        while not path.exists():  # noqa: ASYNC110 the other process has no other way to tell
            await asyncio.sleep(0.005)


async def test_many_connections_are_served_at_once(peer):
    async def one(number):
        async with connect(peer.address, timeout=PATIENCE) as client:
            payload = b"%d" % number * 1000
            assert await client.call(SERVICE, "Echo", payload) == payload

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(one(number))


async def test_64_mib_streamed_to_a_slow_reader_stay_on_the_wire(peer):
    async with connect(peer.address, timeout=PATIENCE) as client:
        await client.call(SERVICE, "Echo", bytes(MIB))
        before = int(await client.call(SERVICE, "Peak", b"reset"))
        ours = peak_here(reset=True)
        total = 0
        async with client.stream(SERVICE, "Pour", b"1024 65536") as stream:
            async for message in stream:
                total += len(message)
                await asyncio.sleep(0.0005)
        assert total == 64 * MIB
        assert int(await client.call(SERVICE, "Peak", b"")) - before < 8 * 1024, "KiB in the server"
        assert peak_here() - ours < 8 * 1024, "KiB here"


async def test_64_mib_streamed_to_a_slow_server_stay_on_the_wire(peer):
    async with connect(peer.address, timeout=PATIENCE) as client:
        await client.call(SERVICE, "Echo", bytes(MIB))
        before = int(await client.call(SERVICE, "Peak", b"reset"))
        ours = peak_here(reset=True)
        message = bytes(1 << 16)
        async with client.stream(SERVICE, "Swallow") as stream:
            for _ in range(1024):
                await stream.send(message)
            stream.close_send()
            assert await stream.response() == b"%d" % (64 * MIB)
        assert int(await client.call(SERVICE, "Peak", b"")) - before < 8 * 1024, "KiB in the server"
        assert peak_here() - ours < 8 * 1024, "KiB here"


def peak_here(*, reset=False):
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def test_64_mib_both_ways_at_once(peer):
    async with connect(peer.address, timeout=PATIENCE) as client:
        echo = os.urandom(MIB)

        async def one():
            assert await client.call(SERVICE, "Echo", echo, timeout=PATIENCE) == echo

        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(one())


def test_the_server_costs_a_guest_no_import_that_asyncio_has_not_made():
    code = (
        "import asyncio, logging, sys; before = set(sys.modules); import kata_py.ttrpc.server;"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('kata_py')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["__future__"]
