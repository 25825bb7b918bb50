"""The publisher against a real ttrpc server in the manager's place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from kata_protos.events_pb2 import TaskExit
from kata_protos.events_service_pb2 import ForwardRequest
from kata_protos.events_service_ttrpc import EventsService
from kata_py.sandbox.events import Event, EventQueue, Topic
from kata_py.shim import publisher as publishers
from kata_py.shim.publisher import publisher
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.server import Context, Server
from kata_py.ttrpc.status import Code


class Manager(EventsService):
    def __init__(self) -> None:
        self.requests: asyncio.Queue[ForwardRequest] = asyncio.Queue()
        self.refuse: StatusError | None = None
        self.hang = False

    async def Forward(self, request: ForwardRequest, context: Context) -> Empty:
        if self.hang:
            await asyncio.Event().wait()
        if self.refuse:
            raise self.refuse
        self.requests.put_nowait(request)
        return Empty()

    async def next(self) -> ForwardRequest:
        async with asyncio.timeout(5):
            return await self.requests.get()


@asynccontextmanager
async def listening(manager: Manager, socket: Path) -> AsyncIterator[None]:
    server = Server()
    server.add(manager)
    await server.listen(UnixAddress(str(socket)))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed(0)
        socket.unlink(missing_ok=True)


@pytest.fixture
def socket(short_tmp: Path) -> Path:
    return short_tmp / "events.sock"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "CALL_TIMEOUT", 0.1)
    monkeypatch.setattr(publishers, "_PAUSES", (0.01, 0.02))


def exit_of(id: str) -> Event:
    return Event(Topic.EXIT, TaskExit(container_id=id, exit_status=3))


@pytest.mark.parametrize("prefix", ["", "unix://"])
async def test_an_event_arrives_in_containerds_envelope(prefix: str, socket: Path) -> None:
    manager, event = Manager(), exit_of("box")
    async with listening(manager, socket), publisher(f"{prefix}{socket}", "k8s.io") as publish:
        await publish(event)
    envelope = (await manager.next()).envelope
    assert (envelope.namespace, envelope.topic) == ("k8s.io", "/tasks/exit")
    assert envelope.timestamp.ToNanoseconds() == event.time
    assert envelope.event.type_url == "containerd.events.TaskExit"
    assert TaskExit.FromString(envelope.event.value) == event.message


async def test_a_manager_that_restarts_gets_every_event_in_order(
    socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager()
    async with publisher(str(socket), "default") as publish:
        queue = EventQueue(publish)
        async with queue.sending():
            async with listening(manager, socket):
                queue.put(Topic.EXIT, TaskExit(container_id="0"))
                received = [await manager.next()]
            for number in range(1, 5):
                queue.put(Topic.EXIT, TaskExit(container_id=str(number)))
            await asyncio.sleep(0)
            async with listening(manager, socket):
                received += [await manager.next() for _ in range(4)]
    ids = [TaskExit.FromString(request.envelope.event.value).container_id for request in received]
    assert ids == ["0", "1", "2", "3", "4"]


async def test_a_manager_that_is_away_is_said_once(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with publisher(str(socket), "default") as publish:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(publish(exit_of("box")), 0.1)
    (record,) = caplog.records
    assert "the manager is not there to take /tasks/exit" in record.getMessage()


async def test_an_event_that_is_refused_is_not_sent_again(socket: Path) -> None:
    manager = Manager()
    manager.refuse = StatusError(Code.INVALID_ARGUMENT, "no")
    async with listening(manager, socket), publisher(str(socket), "default") as publish:
        with pytest.raises(StatusError, match="INVALID_ARGUMENT"):
            await publish(exit_of("box"))
        manager.refuse = None
        await publish(exit_of("next"))
    assert TaskExit.FromString((await manager.next()).envelope.event.value).container_id == "next"


async def test_a_manager_that_hangs_is_given_up_on(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "CALL_ATTEMPTS", 2)
    manager = Manager()
    manager.hang = True
    async with listening(manager, socket), publisher(str(socket), "default") as publish:
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"):
            await publish(exit_of("box"))
        manager.hang = False
        await publish(exit_of("next"))
    assert manager.requests.qsize() == 1


async def test_without_an_address_events_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with publisher("", "default") as publish:
        await publish(exit_of("box"))
    (record,) = caplog.records
    assert record.getMessage() == 'event /tasks/exit: container_id: "box" exit_status: 3'


async def test_an_address_of_no_known_form_costs_the_events_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async with publisher("carrier-pigeon://roof", "default") as publish:
        await publish(exit_of("box"))

    assert "carrier-pigeon" in caplog.text
    assert "/tasks/exit" in caplog.text
