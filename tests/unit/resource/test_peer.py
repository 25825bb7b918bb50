"""A machine elsewhere, undone by a process that has seconds to live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kata_protos import hypervisor_pb2 as hv
from kata_protos.hypervisor_ttrpc import HypervisorClient
from kata_py.resource import peer
from kata_py.resource.peer import StopPeer
from kata_py.resource.undo import from_json, to_json
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.adaptor import FakeAdaptor, serving

ID = "a" * 200  # longer than one byte can say


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "hypervisor.sock"


@pytest.fixture
async def adaptor(tmp_path: Path, socket: Path) -> AsyncIterator[FakeAdaptor]:
    adaptor = FakeAdaptor(tmp_path)
    async with serving(socket, adaptor):
        yield adaptor


async def perform(socket: Path, id: str) -> None:
    await asyncio.to_thread(StopPeer(str(socket), id).perform)


async def test_it_is_stopped_by_its_adaptor(adaptor: FakeAdaptor, socket: Path):
    async with connect(UnixAddress(str(socket)), timeout=5) as client:
        await HypervisorClient(client).CreateVM(hv.CreateVMRequest(id=ID), timeout=5)
    await perform(socket, ID)
    assert adaptor.stopped == [ID]


async def test_one_that_the_adaptor_does_not_know_is_stopped_already(adaptor: FakeAdaptor, socket: Path):
    await perform(socket, "other")
    adaptor.stop_error = StatusError(Code.NOT_FOUND, "no sandbox")
    await perform(socket, "other")


async def test_a_refusal_is_an_error_that_says_why(adaptor: FakeAdaptor, socket: Path):
    adaptor.stop_error = StatusError(Code.INTERNAL, "out of order")
    with pytest.raises(OSError, match="out of order"):
        await perform(socket, ID)


async def test_an_adaptor_that_is_not_there_or_goes_away_is_an_error(socket: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        await perform(socket, ID)
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), str(socket))
    async with server:
        with pytest.raises(ConnectionError):
            await perform(socket, ID)


async def test_an_adaptor_that_does_not_answer_is_waited_for_with_a_bound(
    socket: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(peer, "_TIMEOUT", 0.2)
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda reader, writer: held.append(writer), str(socket))
    async with server:
        with pytest.raises(TimeoutError):
            await perform(socket, ID)
        for writer in held:
            writer.close()


def test_it_is_written_to_a_record_and_read_back():
    undo = StopPeer("/run/peerpod/hypervisor.sock", "pod")
    assert from_json(to_json(undo)) == undo
