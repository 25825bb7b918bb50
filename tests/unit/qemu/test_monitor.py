from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kata_py.hypervisor.api import HypervisorError
from kata_qemu.monitor import CommandFailed, DeviceNotFound, Event, Monitor, MonitorClosed, MonitorError, connect
from kata_qemu.parts import Command

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}


class Qemu:
    """The other side: what was asked, and what a test makes it say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    def event(self, name: str, **data: object) -> None:
        self.say({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    async def asked(self) -> dict[str, object]:
        async with asyncio.timeout(5):
            text = b""
            while text.count(b"{") > text.count(b"}") or not text:  # the library ends no line
                text += await self._reader.read(1)
            question = json.loads(text)
            assert isinstance(question, dict)
            return question

    async def answer(self, value: object) -> dict[str, object]:
        question = await self.asked()
        self.say({"return": value, **{key: question[key] for key in question if key == "id"}})
        return question

    async def refuse(self, error_class: str, description: str) -> None:
        question = await self.asked()
        self.say({"error": {"class": error_class, "desc": description}, "id": question["id"]})

    def die(self) -> None:
        self._writer.close()


@asynccontextmanager
async def qemu_side() -> AsyncIterator[tuple[Qemu, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    with ours:
        yield Qemu(reader, writer), ours
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def session() -> AsyncIterator[tuple[Qemu, Monitor]]:
    async with qemu_side() as (qemu, sock):
        qemu.say(GREETING)
        negotiation = asyncio.create_task(qemu.answer({}))
        async with connect(sock) as monitor:
            assert (await negotiation)["execute"] == "qmp_capabilities"
            yield qemu, monitor


async def test_a_command_is_asked_and_its_answer_returned() -> None:
    async with session() as (qemu, monitor):
        asking = asyncio.create_task(monitor.execute(Command("query-status", {"a": 1})))
        question = await qemu.answer({"status": "running"})
        assert (question["execute"], question["arguments"]) == ("query-status", {"a": 1})
        assert await asking == {"status": "running"}


async def test_a_refusal_names_the_command_and_its_class() -> None:
    async with session() as (qemu, monitor):
        asking = asyncio.create_task(monitor.execute(Command("device_del")))
        await qemu.refuse("DeviceNotFound", "Device 'x' not found")
        with pytest.raises(CommandFailed, match="qemu: device_del: Device 'x' not found") as refusal:
            await asking
        assert refusal.value.error_class == "DeviceNotFound"
        assert isinstance(refusal.value, HypervisorError)


async def test_a_device_that_is_not_there_is_told_apart() -> None:
    async with session() as (qemu, monitor):
        asking = asyncio.create_task(monitor.execute(Command("device_del")))
        await qemu.refuse("DeviceNotFound", "Device 'x' not found")
        with pytest.raises(DeviceNotFound):
            await asking
        asking = asyncio.create_task(monitor.execute(Command("device_del")))
        await qemu.refuse("GenericError", "Bus 'x' does not support hotplugging")
        with pytest.raises(CommandFailed) as refusal:
            await asking
        assert not isinstance(refusal.value, DeviceNotFound)


async def test_nothing_is_lent_to_qemu_that_is_gone() -> None:
    async with session() as (qemu, monitor), asyncio.timeout(5):
        with monitor.events("STOP") as events:
            qemu.die()
            assert [event async for event in events] == []
        with pytest.raises(MonitorClosed, match="getfd tap0"):
            await monitor.lend("tap0", 0)


async def test_a_command_without_answer_ends_at_its_bound_and_a_late_answer_harms_nobody() -> None:
    async with session() as (qemu, monitor):
        with pytest.raises(MonitorError, match=r"stop: no answer within 0.05 s"):
            await monitor.execute(Command("stop"), timeout=0.05)
        await qemu.answer("late")
        asking = asyncio.create_task(monitor.execute(Command("cont")))
        await qemu.answer("in time")
        assert await asking == "in time"


async def test_qemu_dying_ends_a_command_at_once() -> None:
    async with session() as (qemu, monitor):
        asking = asyncio.create_task(monitor.execute(Command("stop"), timeout=60))
        await qemu.asked()
        qemu.die()
        async with asyncio.timeout(5):
            with pytest.raises(MonitorClosed, match="stop: the monitor is closed"):
                await asking
            with pytest.raises(MonitorClosed, match="cont: the monitor is closed"):
                await monitor.execute(Command("cont"))


async def test_events_are_heard_by_name_from_the_subscription_on_until_the_session_ends() -> None:
    async with session() as (qemu, monitor), asyncio.timeout(5):
        qemu.event("SHUTDOWN", reason="too early")
        asking = asyncio.create_task(monitor.execute(Command("x")))
        await qemu.answer({})
        await asking
        with monitor.events("SHUTDOWN", "STOP") as events:
            qemu.event("RTC_CHANGE", offset=1)
            qemu.event("SHUTDOWN", reason="guest-reset")
            qemu.event("STOP")
            qemu.die()
            assert [event async for event in events] == [Event("SHUTDOWN", {"reason": "guest-reset"}), Event("STOP")]


async def test_a_subscription_after_the_end_is_an_empty_stream() -> None:
    async with session() as (qemu, monitor), asyncio.timeout(5):
        with monitor.events("SHUTDOWN") as events:
            qemu.die()
            assert [event async for event in events] == []
        with monitor.events("SHUTDOWN") as events:
            assert [event async for event in events] == []


async def test_leaving_the_session_ends_its_streams() -> None:
    async with session() as (_, monitor):
        subscription = monitor.events("SHUTDOWN")
        events = subscription.__enter__()
    async with asyncio.timeout(5):
        assert [event async for event in events] == []
    subscription.__exit__(None, None, None)


async def test_qemu_dying_before_it_greets_is_told_at_once() -> None:
    async with qemu_side() as (qemu, sock):
        qemu.die()
        with pytest.raises(MonitorClosed, match="no greeting: QEMU closed the monitor"):
            async with connect(sock):
                raise AssertionError("connected")


async def test_qemu_that_does_not_greet_is_given_up() -> None:
    async with qemu_side() as (_, sock):
        with pytest.raises(MonitorError, match=r"no greeting within 0.05 s"):
            async with connect(sock, timeout=0.05):
                raise AssertionError("connected")


async def test_somebody_else_on_the_socket_is_no_qemu() -> None:
    async with qemu_side() as (qemu, sock):
        qemu.say({"SSH": "2.0"})
        with pytest.raises(MonitorError):
            async with connect(sock):
                raise AssertionError("connected")


async def test_cancelling_whoever_waits_for_the_greeting_leaves_nothing() -> None:
    async with qemu_side() as (_, sock):

        async def wait() -> None:
            async with connect(sock):
                pass

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_librarys_own_log_stays_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with qemu_side() as (qemu, sock):
        qemu.die()
        with pytest.raises(MonitorClosed):
            async with connect(sock):
                pass
    assert [record for record in caplog.records if record.name.startswith("qemu")] == []


async def test_a_qemu_that_goes_right_after_its_greeting_has_closed_the_monitor() -> None:
    async with qemu_side() as (qemu, sock):
        qemu.say(GREETING)
        qemu.say({"return": {}, "id": "__qmp#00000"})
        qemu.die()
        with pytest.raises(MonitorClosed):
            async with connect(sock):
                pass


async def test_a_refusal_without_its_parts_is_an_error_of_the_monitor() -> None:
    async with session() as (qemu, monitor):
        asking = asyncio.create_task(monitor.execute(Command("query-status", {})))
        question = await qemu.asked()
        qemu.say({"error": {}, "id": question["id"]})
        with pytest.raises(MonitorError, match="query-status"):
            await asking
